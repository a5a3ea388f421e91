/** Events as scripts get them: one JSON object a line. */

import type { VirtioError } from '../../errors.js';
import type { SocketEvent } from './connections.js';
import { ringName } from './ring-name.js';
import { portCounters, totals } from './statistics.js';

/** What stands in one line; `event` says what happened, `t` when, in seconds since 1970. */
export type EventRecord = { readonly event: string; readonly t: number } & Readonly<Record<string, unknown>>;

/** Puts `event` and `t` before what belongs to it. */
export const record = (event: string, fields: Readonly<Record<string, unknown>>): EventRecord => ({
  event,
  t: Date.now() / 1000,
  ...fields,
});

export const errorFields = (error: VirtioError) => ({
  code: error.code,
  message: error.message,
  advice: error.advice ?? null,
});

/** An event of a socket or of one of its connections. */
export function eventRecord({ socket, connection, event }: SocketEvent): EventRecord {
  const whose = { ...(connection !== undefined && { connection: connection.number }), socket };
  switch (event.type) {
    case 'listening':
      return record(event.type, whose);
    case 'connected':
      return record(event.type, { ...whose, ...(connection !== undefined && { lcores: connection.place.lcores }) });
    case 'waiting':
      return record(event.type, { ...whose, ...errorFields(event.error) });
    case 'disconnected':
      return record(event.type, {
        ...whose,
        reason: event.reason,
        ...(connection !== undefined && { ...totals(connection), port: portCounters(connection) }),
      });
    case 'features':
      return record(event.type, { ...whose, features: event.features.names });
    case 'memory':
      return record(event.type, { ...whose, regions: event.regions, bytes: Number(event.bytes) });
    case 'vring': {
      const queue = ringName(event.ring, connection?.device.maxQueuePairs ?? 0);
      return record(event.type, { ...whose, ring: event.ring, queue, state: event.state, size: event.size });
    }
    case 'error': {
      const { outcome, request, ring, error, suppressed } = event;
      return record(event.type, {
        ...whose,
        outcome,
        ...(request !== undefined && { request }),
        ...(ring !== undefined && { ring }),
        ...errorFields(error),
        suppressed,
      });
    }
  }
}
