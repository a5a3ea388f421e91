/**
 * What runs in the guest: drives one device after the other, sends packets through each of them and verifies every byte of
 * what comes back.
 *
 *   node guest-features-program.js '[{"address":"0000:00:04.0",…},…]'
 *
 * One line for each device: what was negotiated, and what came of the traffic.
 */

import { setImmediate as turn } from 'node:timers/promises';
import { TrafficCounter, TrafficCounters, type TrafficTotals } from '../../driver/cli/loopback/counters.js';
import { PatternContent } from '../../driver/cli/loopback/pattern.js';
import { type Difference, QueueTraffic } from '../../driver/cli/loopback/queue-traffic.js';
import type { Port } from '../../driver/net/port.js';
import { openPort } from '../../driver/open.js';
import { EtherType } from '../../driver/spec/internet.js';
import type { AttachedPort } from '../../driver/thread.js';
import { ChangedContent, TYPE_AT } from './changed-content.js';
import { lengthsFor, pairsOf, portOptionsOf, type TrafficTask } from './guest-features.js';

/** What a line holds. */
export interface TrafficLine {
  /** Bits that were accepted, and all that the device offered. */
  readonly accepted: readonly number[];
  readonly offered: readonly number[];
  readonly maxFrameBytes: number;
  readonly totals: TrafficTotals;
  /** Packets that came back on each queue. */
  readonly received: readonly number[];
  /** What was wrong first. */
  readonly difference: Difference | undefined;
  /** Why a ring stands still. */
  readonly broken: string | undefined;
}

/** Low byte of the first EtherType for local experiments; there are two of them. */
const FIRST_TYPE = EtherType.LOCAL_EXPERIMENTAL & 0xff;
const BURST = 32;
const RING_SIZE = 256;
/** Nothing back for so long is the end. */
const STALL_MS = 30_000;
/** Turns between two of the event loop. */
const TURNS = 64;

/** Sends on all queue pairs and takes back, until all is there or nothing comes any more. */
async function runTraffic(
  port: Port,
  { device, packets }: TrafficTask,
): Promise<Omit<TrafficLine, 'accepted' | 'offered' | 'maxFrameBytes'>> {
  const pairs = pairsOf(device);
  const lengths = lengthsFor(device);
  const counters = TrafficCounters.create(pairs);
  const queues = Array.from(
    { length: pairs },
    (_, queue) =>
      // This thread's queues: what a port has of its own is what an attached one has.
      new QueueTraffic(port as unknown as AttachedPort, queue, {
        // A tap has a flow's packets come back in the queue that they went by.
        content: new ChangedContent(
          new PatternContent(port.pool, queue, lengths),
          { at: TYPE_AT, bytes: Uint8Array.of(FIRST_TYPE + queue), isSent: true },
          port.pool.bytes,
        ),
        packets: packets / pairs,
        largest: Math.max(...lengths),
        burst: BURST,
        ringSize: RING_SIZE,
        verify: true,
        counters: counters.of(queue),
        store: undefined,
      }),
  );
  const broken = (): string | undefined => queues.find((queue) => queue.broken !== undefined)?.broken;
  for (let movedAt = performance.now(); !queues.every((queue) => queue.isDone(true)); await turn()) {
    let moved = 0;
    for (let count = 0; count < TURNS; count++) for (const queue of queues) moved += queue.turn(true);
    if (moved > 0) movedAt = performance.now();
    if (broken() !== undefined || performance.now() - movedAt > STALL_MS) break;
  }
  for (const queue of queues) queue.close();
  return {
    totals: counters.totals(),
    received: queues.map((_, queue) => counters.of(queue)[TrafficCounter.RECEIVED]!),
    difference: queues.find(({ difference }) => difference !== undefined)?.difference,
    broken: broken(),
  };
}

async function run(task: TrafficTask): Promise<TrafficLine> {
  await using port = await openPort(task.address, { ...portOptionsOf(task.device), ringSize: RING_SIZE });
  await port.start();
  const { features, outcomes } = port.negotiation!;
  return {
    accepted: features.bits,
    offered: outcomes.filter(({ offeredBy }) => offeredBy === 'device').map(({ feature }) => feature),
    maxFrameBytes: port.maxFrameBytes!,
    ...(await runTraffic(port, task)),
  };
}

for (const task of JSON.parse(process.argv[2]!) as TrafficTask[]) console.log(JSON.stringify(await run(task)));
