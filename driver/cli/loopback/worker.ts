/** The poll thread of a loopback run: sends, receives and verifies on all queue pairs. */

import type { AttachedPort, IdlePolicy, LaunchContext, PcapWriter } from '../../thread.js';
import type { Capture } from './capture-content.js';
import type { PacketContent } from './content.js';
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

export async function run({ port, stop, data, idle }: LaunchContext): Promise<TrafficFindings> {
  const order = data as TrafficOrder;
  const counters = new TrafficCounters(order.memory, order.queues);
  const contents = await makeContents(port, order);
  const writer = order.pcapOut === undefined ? undefined : await createCapture(order.pcapOut);
  const queues = contents.map((content, queue) => makeQueue(port, queue, content, order, counters, writer));
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

/** What each queue sends. A capture's packets are loaded where there is one: nobody else's start is longer for them. */
async function makeContents(port: AttachedPort, { capture, queues, size }: TrafficOrder): Promise<PacketContent[]> {
  const numbers = Array.from({ length: queues }, (_, queue) => queue);
  if (capture === undefined) return numbers.map((queue) => new PatternContent(port.pool, queue, lengthsOf(size)));
  const { CaptureContent } = await import('./capture-content.js');
  return numbers.map((queue) => new CaptureContent(port.pool, capture, queue, queues));
}

async function createCapture(path: string): Promise<PcapWriter> {
  const { PcapWriter } = await import('../../pcap/pcap-writer.js');
  return PcapWriter.create(path);
}

function makeQueue(
  port: AttachedPort,
  queue: number,
  content: PacketContent,
  order: TrafficOrder,
  counters: TrafficCounters,
  writer: PcapWriter | undefined,
): QueueTraffic {
  const { queues, packets, largest, burst, ringSize, verify } = order;
  // Times of the capture where there is one, of this machine otherwise.
  const timestampNs = (sequence: number): bigint => content.timestampNs?.(sequence) ?? BigInt(Date.now()) * 1_000_000n;
  return new QueueTraffic(port, queue, {
    content,
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
