/** What there is to tell of a virtio port beyond testpmd: which way its packets take, where its rings stand. */

import type { Port, RingStand } from '../../../index.js';
import { Feature } from '../../../spec/features.js';

/** Whose turn it is at a ring, and why. */
export function describeStand(direction: 'rx' | 'tx', stand: RingStand): Readonly<Record<string, string | number>> {
  const { position, free, withDevice, used } = stand;
  return { position, free, 'with the device': withDevice, 'used by the device': used, next: turnOf(direction, stand) };
}

function turnOf(direction: 'rx' | 'tx', { withDevice, used, broken }: RingStand): string {
  if (broken !== undefined) return `the driver: ${broken}; the port has to be stopped and started again`;
  if (direction === 'rx') {
    if (used > 0) return `the driver: ${used} buffers wait to be received`;
    if (withDevice === 0) return 'the driver: the device has no buffers for packets';
    return `nobody: ${withDevice} buffers wait for packets`;
  }
  if (withDevice > 0) return `the device: ${withDevice} packets wait to be sent`;
  if (used > 0) return `nobody: ${used} packets were sent, and are reclaimed when there is a next one`;
  return 'nobody: everything was sent';
}

/** The choices that were made when the rings were opened, each with what decided it; none while there is no device. */
export function pathOf(port: Port): readonly string[] {
  const { negotiation } = port;
  if (negotiation === undefined) return ['not chosen: no features were negotiated'];
  const because = (feature: number): string => {
    const outcome = negotiation.outcomes.find((other) => other.feature === feature);
    return outcome === undefined ? 'nobody offers or wants it' : `${outcome.name} ${outcome.explanation}`;
  };
  const choice = (feature: number, yes: string, no: string): string =>
    `${negotiation.features.has(feature) ? yes : no} (${because(feature)})`;
  const offloads = port.offloads.filter(({ isOn }) => isOn).map(({ name }) => name);
  return [
    choice(Feature.RING_PACKED, 'packed rings', 'split rings'),
    choice(Feature.IN_ORDER, 'buffers are used in order', 'buffers are used in any order'),
    choice(Feature.MRG_RXBUF, 'receive: a packet may take several buffers', 'receive: a packet takes one buffer'),
    choice(Feature.INDIRECT_DESC, 'send: one descriptor a packet', 'send: one descriptor a segment'),
    choice(Feature.EVENT_IDX, 'notifications by index', 'notifications by flag'),
    offloads.length === 0
      ? 'packets are moved as they are: no offload is on'
      : `packets with work are looked at one by one: ${offloads.join(', ')}`,
  ];
}
