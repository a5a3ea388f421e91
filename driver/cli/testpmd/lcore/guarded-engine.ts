/** An engine whose failure costs the packets at hand, not the thread that turns the others, too. */

import { type ForwardEngine, type Stream, StreamCounter } from './stream.js';

/** What is thrown is told once; the burst that it came with is freed, and counts as dropped. */
export function guardedEngine(
  engine: ForwardEngine,
  { burst, counters }: Stream,
  tell: (error: unknown) => void,
): ForwardEngine {
  let hasFailed = false;
  return {
    forward() {
      try {
        return engine.forward();
      } catch (error) {
        counters[StreamCounter.FWD_DROPPED]! += burst.count;
        burst.free();
        if (!hasFailed) tell(error);
        hasFailed = true;
        return 0;
      }
    },
    close: () => engine.close?.(),
  };
}
