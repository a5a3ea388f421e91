/** Chooses the engine of a mode. */

import type { ForwardMode } from '../forward-settings.js';
import { type ForwardEngine, type Stream, StreamCounter } from '../stream.js';
import { StreamTraffic } from '../stream-traffic.js';
import { checksumEngine } from './csum.js';
import type { EngineContext, EngineMaker } from './engine-maker.js';
import { fiveTupleSwapEngine } from './five-tuple-swap.js';
import { flowgenEngine } from './flowgen.js';
import { icmpEchoEngine } from './icmpecho.js';
import { ioEngine } from './io.js';
import { macEngine } from './mac.js';
import { macSwapEngine } from './macswap.js';
import { noisyEngine } from './noisy.js';
import { rxOnlyEngine } from './rxonly.js';
import { txOnlyEngine } from './txonly.js';

const makers: Readonly<Record<ForwardMode, EngineMaker>> = {
  io: ioEngine,
  mac: macEngine,
  macswap: macSwapEngine,
  flowgen: flowgenEngine,
  rxonly: rxOnlyEngine,
  txonly: txOnlyEngine,
  csum: checksumEngine,
  icmpecho: icmpEchoEngine,
  noisy: noisyEngine,
  '5tswap': fiveTupleSwapEngine,
  'shared-rxq': rxOnlyEngine,
};

export function createEngine(stream: Stream, context: EngineContext): ForwardEngine {
  const { settings } = context;
  const engine = makers[settings.mode](stream, new StreamTraffic(stream, settings), context);
  // testpmd records all modes but noisy.
  return settings.cyclesPerMs > 0 && settings.mode !== 'noisy'
    ? timed(engine, stream.counters, settings.cyclesPerMs)
    : engine;
}

/** Counts the processor's cycles of turns that move packets. */
function timed(engine: ForwardEngine, counters: Float64Array, cyclesPerMs: number): ForwardEngine {
  return {
    forward() {
      const start = performance.now();
      const moved = engine.forward();
      if (moved > 0) counters[StreamCounter.BUSY_CYCLES]! += Math.round((performance.now() - start) * cyclesPerMs);
      return moved;
    },
    close: () => engine.close?.(),
  };
}
