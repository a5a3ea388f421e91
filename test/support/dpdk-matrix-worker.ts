/** The poll thread of a combination: sends, takes back and verifies on all of its queue pairs. */

import { TrafficCounters, type TrafficMemory } from '../../driver/cli/loopback/counters.js';
import { PatternContent } from '../../driver/cli/loopback/pattern.js';
import { type Difference, QueueTraffic } from '../../driver/cli/loopback/queue-traffic.js';
import type { LaunchContext } from '../../driver/net/launch-worker.js';
import { ADDRESSES_AT, ChangedContent } from './changed-content.js';

export interface MatrixOrder {
  readonly memory: TrafficMemory;
  readonly queues: number;
  /** Of each queue. */
  readonly packets: number;
  /** Lengths of packets, in turn. */
  readonly lengths: readonly number[];
  readonly ringSize: number;
  /** What comes back has these twelve bytes in front. */
  readonly addresses: Uint8Array;
}

export interface MatrixFindings {
  /** What was wrong first on each queue. */
  readonly differences: readonly (Difference | undefined)[];
  /** Why a ring stands still. */
  readonly broken: string | undefined;
}

const BURST = 32;
/** Idle turns between two looks at whether a ring stands still: a power of two, less one. */
const BROKEN_CHECK_MASK = 0x3ff;

export function run({ port, stop, data, idle }: LaunchContext): MatrixFindings {
  const { memory, queues: count, packets, lengths, ringSize, addresses } = data as MatrixOrder;
  const counters = new TrafficCounters(memory, count);
  const queues = Array.from({ length: count }, (_, queue) => {
    const change = { at: ADDRESSES_AT, bytes: addresses, isSent: false };
    const content = new ChangedContent(new PatternContent(port.pool, queue, lengths), change, port.pool.bytes);
    return new QueueTraffic(port, queue, {
      content,
      packets,
      largest: Math.max(...lengths),
      burst: BURST,
      ringSize,
      verify: true,
      counters: counters.of(queue),
      store: undefined,
    });
  });
  const rest = idle('yield');
  let broken: string | undefined;
  let idleTurns = 0;
  try {
    while (!stop.requested) {
      let moved = 0;
      for (const queue of queues) moved += queue.turn(true);
      if (queues.every((queue) => queue.isDone(true))) break;
      rest.turn(moved);
      if (moved > 0 || (++idleTurns & BROKEN_CHECK_MASK) !== 0) continue;
      broken = queues.map((queue) => queue.broken).find((reason) => reason !== undefined);
      if (broken !== undefined) break;
    }
  } finally {
    for (const queue of queues) queue.close();
  }
  return { differences: queues.map((queue) => queue.difference), broken };
}
