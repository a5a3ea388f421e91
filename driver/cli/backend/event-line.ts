/** Events as people get them: one short line each. */

import { count, memorySize, plural } from '../output.js';
import type { SocketEvent } from './connections.js';
import { ringName } from './ring-name.js';
import { totals } from './statistics.js';

/** What happened, without a line break at its end. */
export function eventLine({ socket, connection, event }: SocketEvent): string {
  const whose = connection === undefined ? socket : `connection ${connection.number}`;
  switch (event.type) {
    case 'listening':
      return `listening on ${socket}`;
    case 'waiting':
      return `waiting for a front-end: ${event.error.message}`;
    case 'connected':
      return `${whose}: connected on ${socket}${polledBy(connection?.place.lcores ?? [])}`;
    case 'disconnected': {
      if (connection === undefined) return `${whose}: disconnected, ${event.reason}`;
      const { fromGuest, toGuest, drops } = totals(connection);
      const dropped = Object.values(drops).reduce((sum, value) => sum + value, 0);
      const moved = `${plural(fromGuest.packets, 'packet')} from the guest, ${count(toGuest.packets)} to it, ${count(dropped)} dropped`;
      return `${whose}: disconnected, ${event.reason}; ${moved}`;
    }
    case 'features':
      return `${whose}: features ${event.features}`;
    case 'memory':
      return `${whose}: memory, ${memorySize(Number(event.bytes))} in ${plural(event.regions, 'region')}`;
    case 'vring': {
      const queue = ringName(event.ring, connection?.device.maxQueuePairs ?? 0);
      return `${whose}: ${queue} ${event.state}${event.size === 0 ? '' : `, ${plural(event.size, 'entry', 'entries')}`}`;
    }
    case 'error': {
      const about = event.request ?? (event.ring === undefined ? undefined : `ring ${event.ring}`);
      const more = event.suppressed === 0 ? '' : `; ${plural(event.suppressed, 'more like it', 'more like it')} before`;
      return `${whose}: ${event.outcome}${about === undefined ? '' : `, ${about}`}: ${event.error.toLine()}${more}`;
    }
  }
}

const polledBy = (lcores: readonly number[]): string =>
  lcores.length === 0 ? '' : `, polled on ${plural(lcores.length, 'processor')}: ${lcores.join(', ')}`;
