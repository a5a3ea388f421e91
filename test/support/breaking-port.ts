/** A port on a forwarding lcore that breaks when a test tells it to. */

import type { LcoreContextOfPort, PolledPort } from '../../driver/cli/testpmd/lcore/polled-port.js';
import type { Burst } from '../../driver/thread.js';

/** How it breaks: the word in what it is given. */
export const Break = { NOT: 0, ATTACH: 1, RECEIVE: 2, TURN: 3 } as const;

export interface BreakingPortData {
  readonly word: SharedArrayBuffer;
}

export function attachPort({ pool }: LcoreContextOfPort, { word }: BreakingPortData): PolledPort {
  const words = new Int32Array(word);
  const breakAt = (place: number): void => {
    if (Atomics.load(words, 0) === place) throw new Error('broken by a test');
  };
  breakAt(Break.ATTACH);
  return {
    rxQueue: () => ({
      receive(burst: Burst) {
        const received = burst.allocate(4);
        breakAt(Break.RECEIVE);
        return received;
      },
    }),
    txQueue: () => ({
      send(burst: Burst) {
        const sent = burst.count;
        pool.free(burst.handles, 0, sent);
        burst.count = 0;
        return sent;
      },
    }),
    turn: () => breakAt(Break.TURN),
    close: () => undefined,
  };
}
