/** What the connections have moved, now and since the last look. */

import { CountedPort } from '../../backend/ports/port-counters.js';
import type { RingStatistics } from '../../index.js';
import type { Connection } from './connections.js';
import { isControl, ringName } from './ring-name.js';

/** What a ring of a connection has moved. */
export interface RingCounts extends RingStatistics {
  readonly ring: number;
  readonly queue: string;
}

/** A ring's counters at one moment, and its rates since the one before. */
export interface RingSample extends RingCounts {
  /** Packets a second since the last sample. */
  readonly pps: number;
  /** Bytes a second since the last sample. */
  readonly bytesPerSecond: number;
}

export interface ConnectionSample {
  readonly connection: number;
  readonly socket: string;
  readonly rings: readonly RingSample[];
  /** What its port has counted itself. */
  readonly port: Readonly<Record<string, number>>;
}

/** Counters of the rings that run or did something, without rates. */
export function ringCounters(connection: Connection): readonly RingCounts[] {
  const { device } = connection;
  const pairs = device.maxQueuePairs;
  return Array.from({ length: 2 * pairs + 1 }, (_, ring) => ({
    ring,
    queue: ringName(ring, pairs),
    ...device.statistics(ring),
  })).filter((counters) => connection.running.has(counters.ring) || counters.packets > 0 || dropsOf(counters) > 0);
}

export const dropsOf = ({ drops }: RingStatistics): number =>
  Object.values(drops).reduce((sum, value) => sum + value, 0);

/** What the port of a connection has counted itself, by name; nothing where it does not count. */
export const portCounters = ({ port }: Connection): Readonly<Record<string, number>> =>
  port instanceof CountedPort ? port.statistics() : {};

/** What a connection has moved each way, over all its queues. */
export interface Totals {
  readonly fromGuest: { readonly packets: number; readonly bytes: number };
  readonly toGuest: { readonly packets: number; readonly bytes: number };
  /** By reason, those that happened. */
  readonly drops: Readonly<Record<string, number>>;
}

export function totals(connection: Connection): Totals {
  const pairs = connection.device.maxQueuePairs;
  const rings = ringCounters(connection).filter(({ ring }) => !isControl(ring, pairs));
  const way = (isToGuest: boolean) => {
    const some = rings.filter(({ ring }) => (ring % 2 === 0) === isToGuest);
    return {
      packets: some.reduce((sum, { packets }) => sum + packets, 0),
      bytes: some.reduce((sum, { bytes }) => sum + bytes, 0),
    };
  };
  const drops: Record<string, number> = {};
  for (const [reason, value] of rings.flatMap((counts) => Object.entries(counts.drops))) {
    if (value > 0) drops[reason] = (drops[reason] ?? 0) + value;
  }
  return { fromGuest: way(false), toGuest: way(true), drops };
}

/** Takes samples, one after the other. */
export class Sampler {
  #last = new Map<string, RingStatistics>();
  #lastAt = performance.now();

  /** Everything since the last call, or since it was made. */
  sample(connections: readonly Connection[]): { readonly seconds: number; readonly connections: ConnectionSample[] } {
    const now = performance.now();
    const seconds = Math.max((now - this.#lastAt) / 1000, 1e-3);
    const seen = new Map<string, RingStatistics>();
    const samples = connections.map((connection) => ({
      connection: connection.number,
      socket: connection.socket,
      rings: ringCounters(connection).map((counters) => {
        const key = `${connection.number} ${counters.ring}`;
        seen.set(key, counters);
        const last = this.#last.get(key);
        return {
          ...counters,
          pps: Math.round((counters.packets - (last?.packets ?? 0)) / seconds),
          bytesPerSecond: Math.round((counters.bytes - (last?.bytes ?? 0)) / seconds),
        };
      }),
      port: portCounters(connection),
    }));
    this.#last = seen;
    this.#lastAt = now;
    return { seconds, connections: samples };
  }
}
