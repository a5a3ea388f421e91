/** A layer that can be run by itself. */

/** Packets of a burst, as everywhere by default. */
export const LAYER_BURST = 32;

export interface Layer {
  /** Takes `bursts` bursts of `LAYER_BURST` packets through the layer. */
  run(bursts: number): void;
  close(): void;
}
