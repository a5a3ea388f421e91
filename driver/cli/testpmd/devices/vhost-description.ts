/** What there is to tell of a net_vhost port beyond testpmd: what its front-end chose, and where the guest's rings stand. */

import type { ConnectionDescription } from '../../../index.js';

type Ring = ConnectionDescription['rings'][number];

/** The guest's queue behind one of the port: what the port receives, the guest has sent. */
export function guestRing({ rings }: ConnectionDescription, direction: 'rx' | 'tx', queue: number): Ring | undefined {
  const name = direction === 'rx' ? `transmitq ${queue}` : `receiveq ${queue}`;
  return rings.find((ring) => ring.queue === name);
}

export function describeGuestRing(ring: Ring): Readonly<Record<string, string | number>> {
  const { queue, size, state, isEnabled, indices, kick, call, next, why } = ring;
  return {
    'guest queue': queue,
    entries: size,
    state: `${state}, ${isEnabled ? 'enabled' : 'disabled'}`,
    ...(indices !== undefined && {
      available: indices.available,
      used: indices.used,
      'with the device': indices.outstanding,
    }),
    kick,
    call,
    next: next === 'nobody' ? `nobody: ${why}` : `the ${next}: ${why}`,
  };
}

/** The choices that the front-end's features made. */
export function hostPathOf({ features, log }: ConnectionDescription): readonly string[] {
  const choice = (name: string, yes: string, no: string): string => {
    const feature = features.find((other) => other.name === name);
    const isOn = feature?.isAccepted === true;
    return `${isOn ? yes : no} (${name}: ${feature?.why ?? 'not offered'})`;
  };
  return [
    choice('RING_PACKED', 'packed rings', 'split rings'),
    choice('MRG_RXBUF', 'to the guest: a packet may take several buffers', 'to the guest: a packet takes one buffer'),
    choice('ACCESS_PLATFORM', 'addresses are translated by the IOTLB', 'addresses are those of the memory table'),
    log?.isActive === true ? 'what is written is marked in the dirty log' : 'no dirty log is kept',
    'a burst is copied by one call',
  ];
}
