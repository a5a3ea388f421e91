/** The parts of the bench. */

export const PARTS = ['rates', 'latency', 'non-drop', 'growth', 'layers', 'start-up', 'reconnect', 'memory'] as const;
export type PartName = (typeof PARTS)[number];

/** What `--quick` measures of itself: what fits two minutes. */
export const QUICK_PARTS: readonly PartName[] = ['rates', 'layers', 'start-up', 'memory'];

/** Parts that have a picture beside their table, in a file of their name. */
export const PICTURED = ['rates', 'latency', 'growth', 'layers'] as const satisfies readonly PartName[];
