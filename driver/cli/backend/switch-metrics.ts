/** What the switch has counted, as metrics. */

import { type Metric, snakeCase } from '../metrics/metric.js';
import { GONE, type SwitchCounts, type SwitchMember, type SwitchView } from './switch-view.js';

const LABELS = ['socket', 'connection'];

const COUNTERS = {
  received: 'Packets that came from the member.',
  sent: 'Packets that went to the member.',
  flooded: 'Packets of the member that went to all others.',
  direct: 'Of those sent, packets that went from guest to guest with one copy.',
  moves: 'Stations that turned up behind the member and were known behind another.',
  notLearned: 'Stations of the member that there was no room for.',
} as const satisfies Partial<Record<keyof SwitchCounts, string>>;

/** Members that have gone are one, `connection="gone"`: so a sum over all members never goes back. */
export function switchMetrics(view: () => SwitchView | undefined): Metric[] {
  const members = (): readonly SwitchMember[] => view()?.sample().members ?? [];
  const here = (): readonly SwitchMember[] => members().filter(({ member }) => member !== GONE);
  return [
    {
      name: 'virtio_pmd_switch_members',
      help: 'Guests that are connected by the switch now, and the tap uplink.',
      labels: [],
      samples: () => (view() === undefined ? [] : [[{}, here().length]]),
    },
    {
      name: 'virtio_pmd_switch_stations',
      help: 'Stations that the switch knows now, by the member that they are behind.',
      labels: LABELS,
      samples: () => here().map((member) => [labelsOf(member), member.counts.stations]),
    },
    ...Object.entries(COUNTERS).map(
      ([counter, help]): Metric => ({
        name: `virtio_pmd_switch_${snakeCase(counter)}_total`,
        help,
        labels: LABELS,
        samples: () => members().map((member) => [labelsOf(member), member.counts[counter as keyof typeof COUNTERS]]),
      }),
    ),
    {
      name: 'virtio_pmd_switch_drops_total',
      help: 'Packets that the switch dropped, by the member they came from or were for, and by reason.',
      labels: [...LABELS, 'reason'],
      samples: () =>
        members().flatMap((member) =>
          Object.entries(member.counts.drops).map(
            ([reason, value]) => [{ ...labelsOf(member), reason: snakeCase(reason) }, value] as const,
          ),
        ),
    },
  ];
}

const labelsOf = ({ member, socket, connection }: SwitchMember) => ({
  socket: socket ?? '',
  connection: connection ?? (member === GONE ? GONE : ''),
});
