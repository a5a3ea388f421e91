/** All results, as scripts get them in JSON: of one run, or of several that measured a part each. */

import type { Skipped } from './contenders.js';
import type { GrowthResult } from './growth.js';
import type { LatencyResult } from './latency.js';
import type { LayerCost } from './layers/layers.js';
import type { Machine, Versions } from './machine.js';
import type { MemoryUsed } from './memory-used.js';
import type { NonDropResult } from './non-drop.js';
import { PARTS, type PartName } from './parts.js';
import type { Reconnect } from './reconnect.js';
import { type Rates, ratesOf } from './results.js';
import type { StartUp } from './start-up.js';

/** When a part was measured, and with what. */
export interface Measured {
  readonly time: string;
  readonly commit: string;
  /** As `Machine.processor`; absent where it is the report's own. */
  readonly processor?: string;
  readonly seconds: number;
  /** With `--quick`. */
  readonly quick: boolean;
}

/** Something that was not measured, and the part it belongs to. */
export interface SkippedPart extends Skipped {
  readonly part: PartName | 'all';
}

/** What the parts other than the matrix give; absent where one was never measured. */
interface OtherResults {
  readonly latency?: readonly LatencyResult[];
  readonly nonDrop?: readonly NonDropResult[];
  readonly growth?: readonly GrowthResult[];
  readonly layers?: readonly LayerCost[];
  readonly startUp?: StartUp | null;
  readonly reconnect?: Reconnect;
  readonly memory?: MemoryUsed;
}

/** What some parts gave. */
export type PartResults = Partial<Rates> & OtherResults;

interface Head {
  readonly time: string;
  readonly machine: Machine;
  readonly versions: Versions;
  readonly measured: Readonly<Partial<Record<PartName, Measured>>>;
  readonly skipped: readonly SkippedPart[];
}

/** What a run gave. */
export interface Outcome extends Head {
  readonly results: PartResults;
}

/** `machine` and `versions` are the last run's. */
export interface Report extends Head, Rates, OtherResults {}

/** What a run gave, and of the parts that it did not measure what was there before. */
export function mergeReport({ results, ...head }: Outcome, before: Report | undefined): Report {
  const kept = (before?.skipped ?? []).filter(({ part }) => part !== 'all' && head.measured[part] === undefined);
  return {
    ...(before ?? ratesOf([], [])),
    ...head,
    measured: inOrder({ ...(before && keptFrom(before, head.machine)), ...head.measured }),
    skipped: [...head.skipped, ...kept],
    ...results,
  };
}

/** The parts of a report beside those of another machine: each keeps its own. */
const keptFrom = ({ measured, machine }: Report, now: Machine): Report['measured'] =>
  Object.fromEntries(
    Object.entries(measured).map(([part, { processor = machine.processor, ...one }]) => [
      part,
      processor === now.processor ? one : { ...one, processor },
    ]),
  );

/** Parts as they are listed, so that files differ only where results do. */
const inOrder = (measured: Report['measured']): Report['measured'] =>
  Object.fromEntries(PARTS.flatMap((part) => (measured[part] === undefined ? [] : [[part, measured[part]]])));
