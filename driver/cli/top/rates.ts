/** What happened between two snapshots, a second. */

import type { PortSnapshot, ProcessInfo, QueueSnapshot, QueueWay, Snapshot } from '../snapshot/snapshot.js';
import { dropsOf } from '../snapshot/snapshot.js';

/** A queue, or several together. Rates are a second. */
export interface QueueRates {
  readonly port: string;
  readonly queue: string;
  readonly way: QueueWay;
  readonly packetsPerSecond: number;
  readonly bytesPerSecond: number;
  readonly dropsPerSecond: number;
  /** By reason, those that occur now. */
  readonly dropReasons: Readonly<Record<string, number>>;
  readonly pollsPerSecond: number;
  /** Share of the polls that found something, 0 to 1; null without polls. */
  readonly hits: number | null;
  readonly noBufferPerSecond: number;
  /** Kicks or calls that were sent. */
  readonly notificationsPerSecond: number;
  /** Counted from the beginning. */
  readonly packets: number;
  readonly bytes: number;
  readonly drops: number;
  readonly ring: { readonly size: number; readonly withDevice: number | null } | null;
}

export interface ThreadRates {
  readonly name: string;
  readonly id: number;
  /** Share of a processor, 0 to 1; several threads together may have more. */
  readonly cpu: number;
  readonly processor: number | null;
}

export interface Totals {
  readonly packetsPerSecond: number;
  readonly bytesPerSecond: number;
}

/** What `--json` prints. */
export interface Sample {
  readonly process: ProcessInfo;
  /** Of the process, since it was started. */
  readonly uptime: number;
  /** Between the two snapshots; 0 of the first one, which has no rates. */
  readonly seconds: number;
  readonly in: Totals;
  readonly out: Totals;
  readonly dropsPerSecond: number;
  readonly drops: number;
  readonly ports: number;
  readonly queues: readonly QueueRates[];
  readonly threads: readonly ThreadRates[];
}

/** Makes samples of snapshots that come one after the other. */
export class Rates {
  #last: Snapshot | undefined;

  sample(snapshot: Snapshot): Sample {
    const last = this.#last;
    this.#last = snapshot;
    const seconds = last === undefined ? 0 : Math.max(snapshot.at - last.at, 0);
    const before = new Map(last?.ports.flatMap((port) => port.queues.map((queue) => [keyOf(port, queue), queue])));
    const queues = snapshot.ports.flatMap((port) =>
      port.queues.map((queue) => queueRates(port, queue, before.get(keyOf(port, queue)), seconds)),
    );
    const times = new Map(last?.threads.map(({ id, name, cpuSeconds }) => [`${id} ${name}`, cpuSeconds]));
    return {
      process: snapshot.process,
      uptime: rounded(snapshot.at),
      seconds: rounded(seconds),
      in: totalsOf(queues, 'in'),
      out: totalsOf(queues, 'out'),
      dropsPerSecond: sumOf(queues, ({ dropsPerSecond }) => dropsPerSecond),
      drops: sumOf(queues, ({ drops }) => drops),
      ports: snapshot.ports.length,
      queues,
      threads: snapshot.threads.map(({ id, name, cpuSeconds, processor = null }) => ({
        name,
        id,
        cpu: perSecond(cpuSeconds, times.get(`${id} ${name}`) ?? cpuSeconds, seconds),
        processor,
      })),
    };
  }
}

/** Names are the other process' to choose: no two pairs of them are to look alike. */
const keyOf = (port: PortSnapshot, queue: QueueSnapshot): string => JSON.stringify([port.name, queue.name]);

/** One that was not there before begins now; a counter that went back was reset, and counts from 0. */
function perSecond(now: number, before: number, seconds: number): number {
  if (seconds === 0) return 0;
  return rounded((now >= before ? now - before : now) / seconds);
}

function queueRates(
  port: PortSnapshot,
  queue: QueueSnapshot,
  last: QueueSnapshot | undefined,
  seconds: number,
): QueueRates {
  const before = last ?? queue;
  const rate = (value: (queue: QueueSnapshot) => number): number => perSecond(value(queue), value(before), seconds);
  const pollsPerSecond = rate(({ polls }) => polls);
  const emptyPerSecond = rate(({ emptyPolls }) => emptyPolls);
  const reasons = Object.keys(queue.drops).map((reason) => [reason, rate(({ drops }) => drops[reason] ?? 0)] as const);
  return {
    port: port.name,
    queue: queue.name,
    way: queue.way,
    packetsPerSecond: rate(({ packets }) => packets),
    bytesPerSecond: rate(({ bytes }) => bytes),
    dropsPerSecond: rate(dropsOf),
    dropReasons: Object.fromEntries(reasons.filter(([, value]) => value > 0)),
    pollsPerSecond,
    hits: hitsOf(pollsPerSecond, emptyPerSecond),
    noBufferPerSecond: rate(({ noBuffer }) => noBuffer),
    notificationsPerSecond: rate(({ notifications }) => notifications?.sent ?? 0),
    packets: queue.packets,
    bytes: queue.bytes,
    drops: dropsOf(queue),
    ring: queue.ring === undefined ? null : { size: queue.ring.size, withDevice: queue.ring.withDevice ?? null },
  };
}

/** To thousandths: more is noise. */
const rounded = (value: number): number => Math.round(1000 * value) / 1000;

/** Counters are read one after the other while they are written: a share is never more than all. */
const hitsOf = (polls: number, empty: number): number | null =>
  polls > 0 ? Math.min(Math.max(rounded(1 - empty / polls), 0), 1) : null;

export const sumOf = (queues: readonly QueueRates[], value: (queue: QueueRates) => number): number =>
  queues.reduce((sum, queue) => sum + value(queue), 0);

function totalsOf(queues: readonly QueueRates[], way: QueueWay): Totals {
  const some = queues.filter((queue) => queue.way === way);
  return {
    packetsPerSecond: sumOf(some, ({ packetsPerSecond }) => packetsPerSecond),
    bytesPerSecond: sumOf(some, ({ bytesPerSecond }) => bytesPerSecond),
  };
}

/** All queues of a port that go the same way, as one. */
export function byPort(queues: readonly QueueRates[]): QueueRates[] {
  const groups = new Map<string, QueueRates[]>();
  for (const queue of queues) {
    const key = JSON.stringify([queue.port, queue.way]);
    groups.set(key, [...(groups.get(key) ?? []), queue]);
  }
  return [...groups.values()].map(together);
}

function together(queues: readonly QueueRates[]): QueueRates {
  const { port, way } = queues[0]!;
  const sum = (value: (queue: QueueRates) => number): number => sumOf(queues, value);
  const pollsPerSecond = sum((queue) => queue.pollsPerSecond);
  const found = sum(({ hits, pollsPerSecond: polls }) => (hits ?? 0) * polls);
  const dropReasons: Record<string, number> = {};
  for (const [reason, value] of queues.flatMap((queue) => Object.entries(queue.dropReasons))) {
    dropReasons[reason] = (dropReasons[reason] ?? 0) + value;
  }
  const rings = queues.flatMap(({ ring }) => ring ?? []);
  return {
    port,
    queue: way,
    way,
    packetsPerSecond: sum((queue) => queue.packetsPerSecond),
    bytesPerSecond: sum((queue) => queue.bytesPerSecond),
    dropsPerSecond: sum((queue) => queue.dropsPerSecond),
    dropReasons,
    pollsPerSecond,
    hits: pollsPerSecond > 0 ? found / pollsPerSecond : null,
    noBufferPerSecond: sum((queue) => queue.noBufferPerSecond),
    notificationsPerSecond: sum((queue) => queue.notificationsPerSecond),
    packets: sum((queue) => queue.packets),
    bytes: sum((queue) => queue.bytes),
    drops: sum((queue) => queue.drops),
    ring: rings.length === 0 ? null : ringsTogether(rings),
  };
}

const ringsTogether = (rings: readonly NonNullable<QueueRates['ring']>[]): NonNullable<QueueRates['ring']> => ({
  size: rings.reduce((sum, { size }) => sum + size, 0),
  withDevice: rings.reduce<number | null>(
    (sum, { withDevice }) => (sum === null || withDevice === null ? null : sum + withDevice),
    0,
  ),
});
