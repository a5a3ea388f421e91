/** What grows in the part that measures growth. */

export const AXES = ['ring-size', 'burst', 'queues', 'connections', 'guest-memory'] as const;
export type AxisName = (typeof AXES)[number];

/** Units of what an axis counts, after the number; empty for numbers of things. */
export const unitOf = (axis: AxisName): string => (axis === 'guest-memory' ? ' MiB' : '');
