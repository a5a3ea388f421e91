/** A device of the back-end, as a snapshot has it. */

import type { ConnectionDescription, RingStatistics } from '../../index.js';
import type { PortSnapshot, QueueSnapshot, QueueWay } from './snapshot.js';

/** Counters of a ring, under the name of its queue. */
export interface CountedRing extends RingStatistics {
  readonly queue: string;
}

/**
 * @param rings the counters of those that are to be shown
 * @param described the rings as the front-end has set them up, where there is one
 */
export function devicePortSnapshot(
  name: string,
  labels: PortSnapshot['labels'],
  rings: readonly CountedRing[],
  described: ConnectionDescription['rings'] = [],
): PortSnapshot {
  const queues = rings.map(({ queue, callsSent, callsSaved, packets, bytes, drops, polls, emptyPolls, noBuffer }) => {
    const ring = described.find((each) => each.queue === queue);
    const snapshot: QueueSnapshot = {
      name: queue,
      way: wayOf(queue),
      ...{ packets, bytes, drops, polls, emptyPolls, noBuffer },
      notifications: { kind: 'call', sent: callsSent, saved: callsSaved },
      ...(ring !== undefined && ring.size > 0 && { ring: fillOf(ring) }),
    };
    return snapshot;
  });
  return { name, kind: 'guest', labels, queues };
}

/** A guest's receiveq is where packets leave this process. */
function wayOf(queue: string): QueueWay {
  if (queue.startsWith('receiveq')) return 'out';
  return queue.startsWith('transmitq') ? 'in' : 'control';
}

const fillOf = ({ size, outstanding }: ConnectionDescription['rings'][number]) => ({
  size,
  // What stands there was written by the guest.
  ...(outstanding !== undefined && { withDevice: Math.min(outstanding, size) }),
});
