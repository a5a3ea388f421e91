/** What queues have moved, dropped and looked for, as metrics; a rate is what `rate()` makes of a counter. */

import type { PortSnapshot, QueueSnapshot } from '../snapshot/snapshot.js';
import { type Labels, type Metric, snakeCase } from './metric.js';

/** A value of a queue; undefined where it has none. */
type Value = (queue: QueueSnapshot) => number | undefined;

const notified =
  (kind: 'kick' | 'call', which: 'sent' | 'saved'): Value =>
  ({ notifications }) =>
    notifications?.kind === kind ? notifications[which] : undefined;

const VALUES: Readonly<Record<string, readonly [help: string, value: Value]>> = {
  packets_total: ['Packets moved, by queue; receiveq is to the guest, transmitq from it.', ({ packets }) => packets],
  bytes_total: ['Bytes of these packets.', ({ bytes }) => bytes],
  polls_total: ['Looks at the ring.', ({ polls }) => polls],
  empty_polls_total: ['Looks at the ring that found nothing.', ({ emptyPolls }) => emptyPolls],
  calls_sent_total: ['Notifications sent to the guest.', notified('call', 'sent')],
  calls_saved_total: ['Bursts that needed no notification.', notified('call', 'saved')],
  kicks_sent_total: ['Notifications sent to the device.', notified('kick', 'sent')],
  kicks_saved_total: ['Bursts that needed no notification of the device.', notified('kick', 'saved')],
  no_buffer_total: ['Times that there was no buffer for a packet.', ({ noBuffer }) => noBuffer],
  ring_entries: ['Entries of the ring.', ({ ring }) => ring?.size],
  ring_entries_with_device: ['Of these, entries that the device has.', ({ ring }) => ring?.withDevice],
};

/**
 * @param ports as they stand when the metrics are read
 * @param portLabels names of the labels that all ports have
 */
export function queueMetrics(ports: () => readonly PortSnapshot[], portLabels: readonly string[]): Metric[] {
  const labels = [...portLabels, 'queue'];
  const queues = (): (readonly [labels: Labels, queue: QueueSnapshot])[] =>
    ports().flatMap((port) => port.queues.map((queue) => [{ ...port.labels, queue: queue.name }, queue] as const));
  const metrics = Object.entries(VALUES).map(
    ([name, [help, value]]): Metric => ({
      name: `virtio_pmd_${name}`,
      help,
      labels,
      samples: () =>
        queues().flatMap(([whose, queue]) => {
          const found = value(queue);
          return found === undefined ? [] : [[whose, found] as const];
        }),
    }),
  );
  const drops: Metric = {
    name: 'virtio_pmd_drops_total',
    help: 'Packets dropped, by reason.',
    labels: [...labels, 'reason'],
    samples: () =>
      queues().flatMap(([whose, queue]) =>
        Object.entries(queue.drops).map(([reason, value]) => [{ ...whose, reason: snakeCase(reason) }, value] as const),
      ),
  };
  return [...metrics, drops];
}
