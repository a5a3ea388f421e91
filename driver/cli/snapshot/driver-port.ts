/** A port of the driver, as a snapshot has it. */

import type { Port } from '../../index.js';
import type { PortSnapshot, QueueSnapshot } from './snapshot.js';

/** @param labels what it is called in metrics */
export function driverPortSnapshot(
  port: Port,
  name: string,
  labels: PortSnapshot['labels'] = { port: name },
): PortSnapshot {
  const { rx, tx } = port.statistics();
  const queue = (direction: 'rx' | 'tx', pair: number): QueueSnapshot => {
    const { kicksSent, kicksSaved, ringFull: _, ...counters } = (direction === 'rx' ? rx : tx)[pair]!;
    const { size, withDevice } = port.queueInfo(direction, pair);
    return {
      name: `${direction} ${pair}`,
      way: direction === 'rx' ? 'in' : 'out',
      ...counters,
      notifications: { kind: 'kick', sent: kicksSent, saved: kicksSaved },
      ...(size > 0 && { ring: { size, withDevice } }),
    };
  };
  return { name, kind: 'driver', labels, queues: rx.flatMap((_, pair) => [queue('rx', pair), queue('tx', pair)]) };
}
