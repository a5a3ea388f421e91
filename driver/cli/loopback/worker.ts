/** The poll thread of a loopback run: sends, receives and verifies on all queue pairs. */

import { type IdlePolicy, type LaunchContext, PcapWriter } from '../../thread.js';
import { type Capture, CaptureContent } from './capture-content.js';
import { TrafficCounters, type TrafficMemory } from './counters.js';
import { lengthsOf, PatternContent } from './pattern.js';
import { type Difference, QueueTraffic } from './queue-traffic.js';

/** What the thread is told. */
export interface TrafficOrder {
  readonly memory: TrafficMemory;
  readonly queues: number;
  /** Over all queues; Infinity when only time ends it. */
  readonly packets: number;
  readonly size: number | 'imix';
  readonly capture: Capture | undefined;
  readonly largest: number;
  readonly burst: number;
  readonly ringSize: number;
  readonly verify: boolean;
  readonly pcapOut: string | undefined;
  readonly idle: IdlePolicy;
}

/** What it found. */
export interface TrafficFindings {
  readonly difference: Difference | undefined;
  /** Why a ring stands still. */
  readonly broken: string | undefined;
}

/** Idle turns between two looks at whether a ring stands still: a power of two, less one. */
const BROKEN_CHECK_MASK = 0x3ff;

export function run({ port, stop, data, idle }: LaunchContext): TrafficFindings {
  const order = data as TrafficOrder;
  const counters = new TrafficCounters(order.memory, order.queues);
  const writer = order.pcapOut === undefined ? undefined : PcapWriter.create(order.pcapOut);
  const queues = Array.from({ length: order.queues }, (_, queue) => makeQueue(port, queue, order, counters, writer));
  const rest = idle(order.idle);
  let broken: string | undefined;
  let idleTurns = 0;
  let isFirst = true;
  counters.markBegin();
  try {
    while (!stop.requested) {
      const isSending = counters.isSending;
      let moved = 0;
      let done = 0;
      for (let index = 0; index < queues.length; index++) {
        const queue = queues[index]!;
        moved += queue.turn(isSending);
        if (queue.isDone(isSending)) done++;
      }
      if (isFirst && queues.some((queue) => queue.hasReceived)) {
        isFirst = false;
        counters.markFirst();
      }
      if (done === queues.length) break;
      rest.turn(moved);
      if (moved === 0 && (++idleTurns & BROKEN_CHECK_MASK) === 0) {
        broken = queues.map((queue) => queue.broken).find((reason) => reason !== undefined);
        if (broken !== undefined) break;
      }
    }
  } finally {
    counters.markEnd();
    for (const queue of queues) queue.close();
    writer?.close();
  }
  const differences = queues.map((queue) => queue.difference);
  return { difference: differences.find((difference) => difference !== undefined), broken };
}

function makeQueue(
  port: LaunchContext['port'],
  queue: number,
  order: TrafficOrder,
  counters: TrafficCounters,
  writer: PcapWriter | undefined,
): QueueTraffic {
  const { capture, queues, packets, largest, burst, ringSize, verify } = order;
  const captured = capture && new CaptureContent(port.pool, capture, queue, queues);
  // Times of the capture where there is one, of this machine otherwise.
  const timestampNs = (sequence: number): bigint => captured?.timestampNs(sequence) ?? BigInt(Date.now()) * 1_000_000n;
  return new QueueTraffic(port, queue, {
    content: captured ?? new PatternContent(port.pool, queue, lengthsOf(order.size)),
    // Packet n is queue n % queues's.
    packets: Number.isFinite(packets) ? Math.floor((packets - queue + queues - 1) / queues) : packets,
    largest,
    burst,
    ringSize,
    verify,
    counters: counters.of(queue),
    store: writer && { writer, timestampNs },
  });
}
