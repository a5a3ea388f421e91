/** Which of two kinds of machine the two processors are at the moment: this decides what a fair expectation is. */

/**
 * `two-cores`: moving cache lines from core to core is what costs. `two-threads`: both are threads of one core and share
 * its units and caches; instructions are what costs.
 */
export type Regime = 'two-cores' | 'two-threads';

/**
 * The regime, and for two cores whether they share a cache: figures of near and of distant cores are several times apart.
 *
 * A hypervisor may move a virtual machine from one placement to another within seconds, and /sys does not tell.
 */
export type Placement = 'two-threads' | 'near-cores' | 'distant-cores';

/** What the limit program finds out about two processors. */
export interface Probe {
  /** How long a cache line takes to the other processor and back. */
  readonly roundTripNanoseconds: number;
  /** Speed of computing while the other processor computes too, as a share of the speed alone. */
  readonly sharing: number;
}

/*
 * Measured on a Zen 4 machine that a hypervisor moved between all three, with 64-byte frames:
 *
 *                                           round trip      sharing         limit
 *   two threads of a core                   50 ns           0.55 to 0.65    96 Mpps
 *   two cores that share a cache            100 ns          0.98 to 1.01    33 to 50 Mpps
 *   two cores that do not                   450 to 520 ns   0.98 to 1.01    12 to 16 Mpps
 */

/** Threads of one core compute at a half to two thirds of their speed alone, cores at all of it. */
const SHARING_BOUNDARY = 0.8;
/** A cache line that crosses between two caches takes several times as long as inside one. */
const DISTANT_NANOSECONDS = 250;

export function placementOf(probe: Probe): Placement {
  if (probe.sharing < SHARING_BOUNDARY) return 'two-threads';
  return probe.roundTripNanoseconds < DISTANT_NANOSECONDS ? 'near-cores' : 'distant-cores';
}

export const regimeOf = (placement: Placement): Regime => (placement === 'two-threads' ? 'two-threads' : 'two-cores');
