/** Making an emulated device misbehave, for tests of drivers. */

import type { Bar, MemoryRange } from '../spec/pci-function.js';
import type { Iova } from '../units.js';

/** The parts of an emulated function that a driver can access; offsets count from the beginning of each. */
export type EmulatedRegion = 'config' | 'common' | 'notify' | 'isr' | 'device' | 'msix' | 'legacy';

/** Hooks into the accesses of a driver. Each is called after, or instead of, what an honest device does. */
export interface EmulatedFaults {
  /** What the driver reads; `value` is what an honest device answers. Cut to the width of the access. */
  onRead?(region: EmulatedRegion, offset: number, value: number, bytes: number): number;
  /** What arrives of a write; undefined: nothing does. */
  onWrite?(region: EmulatedRegion, offset: number, value: number, bytes: number): number | undefined;
  /** The BAR that the driver sees. */
  onBar?(index: number, bar: Bar | undefined): Bar | undefined;
  /** Called before memory is mapped; throws in place of a machine that cannot. */
  onMapDma?(address: Iova, memory: MemoryRange): void;
  /** Called before memory is unmapped. */
  onUnmapDma?(address: Iova, bytes: number): void;
}
