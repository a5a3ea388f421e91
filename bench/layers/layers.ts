/** What each layer costs a packet, by itself and with everything in the caches: one thread, no peer. */

import { setImmediate as nextTurn } from 'node:timers/promises';

import { type Figure, rounded } from '../comparison.js';
import { summarize } from '../statistics.js';
import { borderLayer } from './border.js';
import { copyLayer } from './copy.js';
import { LAYER_BURST, type Layer } from './layer.js';
import { poolLayer } from './pool.js';
import { ringLayer } from './ring.js';

export interface LayerCost {
  readonly layer: string;
  readonly what: string;
  /** Nanoseconds a packet. */
  readonly nanoseconds: Figure;
  readonly least: number;
}

interface LayerKind {
  readonly layer: string;
  readonly what: string;
  readonly open: () => Layer;
}

const KINDS: readonly LayerKind[] = [
  { layer: 'ring, split', what: 'posted, popped, returned and reclaimed', open: () => ringLayer(false) },
  { layer: 'ring, packed', what: 'posted, popped, returned and reclaimed', open: () => ringLayer(true) },
  { layer: 'pool', what: 'allocated and freed', open: poolLayer },
  { layer: 'copy, 64 bytes', what: "from a guest's memory into the pool", open: () => copyLayer(64) },
  { layer: 'copy, 1518 bytes', what: "from a guest's memory into the pool", open: () => copyLayer(1518) },
  { layer: 'border', what: `a native call with nothing to do, for ${LAYER_BURST} packets`, open: borderLayer },
];

const SAMPLES = 15;
const BURSTS = 20_000;

/** Samples of all layers take turns, so that what disturbs one disturbs the others, too. */
export async function measureLayers(signal: AbortSignal, samples = SAMPLES, bursts = BURSTS): Promise<LayerCost[]> {
  const layers = KINDS.map((kind) => ({ ...kind, running: kind.open(), nanoseconds: [] as number[] }));
  try {
    for (const { running } of layers) running.run(bursts);
    for (let sample = 0; sample < samples; sample++) {
      for (const { running, nanoseconds } of layers) {
        const start = performance.now();
        running.run(bursts);
        nanoseconds.push(((performance.now() - start) * 1e6) / (bursts * LAYER_BURST));
      }
      signal.throwIfAborted();
      await nextTurn();
    }
  } finally {
    for (const { running } of layers) running.close();
  }
  return layers.map(({ layer, what, nanoseconds }) => {
    const { max, median, spread } = summarize(nanoseconds);
    const figure = {
      samples: nanoseconds.map(rounded),
      max: rounded(max),
      median: rounded(median),
      spread: rounded(spread),
    };
    return { layer, what, nanoseconds: figure, least: rounded(Math.min(...nanoseconds)) };
  });
}
