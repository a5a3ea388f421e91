/** `net_vhost` on an lcore: the rings of the guest that are there. */

import { AttachedHostPort } from '../../../backend/host-thread.js';
import { PacketField, PacketFlag } from '../../../memory/packet-fields.js';
import { type PacketTally, packetTally, talliesOf } from '../../../net/packet-tally.js';
import { insertTag, stripTag } from '../../../offload/vlan.js';
import type { Burst } from '../../../thread.js';
import type { LcoreContextOfPort, PolledPort, PolledRxQueue, PolledTxQueue } from '../lcore/polled-port.js';

/** Room for the virtio header before a packet (virtio 1.2 §5.1.6). */
const HEADER_BYTES = 12;

/** What an lcore is given. */
export interface VhostQueues {
  /** Where packets are counted by size (`createTallies`): `VhostTally.PLACES` for each queue. */
  readonly tallies: SharedArrayBuffer;
  /** Received packets lose their VLAN tags, which are in their fields then. */
  readonly stripsTags: boolean;
}

/**
 * Places of a queue's tallies: what was received, what was to be sent, what of that the guest had no buffers for, and what
 * had no room for its tag.
 */
export const VhostTally = { RECEIVED: 0, OFFERED: 1, LEFT: 2, UNTAGGED: 3, PLACES: 4 } as const;

export function attachPort(context: LcoreContextOfPort, { tallies, stripsTags }: VhostQueues): PolledPort {
  const { pool, onRequest, emit } = context;
  const port = new AttachedHostPort({ pool, onRequest: (type, handler) => onRequest(type, handler), emit });
  const tally = (queue: number, place: number): PacketTally =>
    packetTally(pool, talliesOf(tallies, VhostTally.PLACES * queue + place));
  return {
    rxQueue: (queue) => {
      const plain = new VhostRxQueue(port, queue, tally(queue, VhostTally.RECEIVED));
      return stripsTags ? new StrippingRxQueue(plain) : plain;
    },
    txQueue: (queue) =>
      new VhostTxQueue(port, queue, {
        offered: tally(queue, VhostTally.OFFERED),
        left: tally(queue, VhostTally.LEFT),
        untagged: tally(queue, VhostTally.UNTAGGED),
      }),
    turn: () => port.tend(),
    close: () => port.close(),
  };
}

class VhostRxQueue implements PolledRxQueue {
  readonly #port: AttachedHostPort;
  readonly #queue: number;
  readonly #tally: PacketTally;

  constructor(port: AttachedHostPort, queue: number, tally: PacketTally) {
    this.#port = port;
    this.#queue = queue;
    this.#tally = tally;
  }

  receive(burst: Burst): number {
    const start = burst.count;
    const received = this.#port.receive(this.#queue, burst);
    if (received > 0) this.#tally.count(burst.handles, start, burst.count);
    return received;
  }
}

/** Software on this side sees to tags: no virtio device does. */
class StrippingRxQueue implements PolledRxQueue {
  readonly #queue: VhostRxQueue;

  constructor(queue: VhostRxQueue) {
    this.#queue = queue;
  }

  receive(burst: Burst): number {
    const start = burst.count;
    const received = this.#queue.receive(burst);
    for (let index = start; index < burst.count; index++) stripTag(burst.pool, burst.handles[index]!);
    return received;
  }
}

const { FLAGS, WORDS_SHIFT } = PacketField;

/** Puts in the tags that packets ask for; one that has no room for its own is counted and dropped. */
export function insertTags(burst: Burst, untagged: PacketTally): void {
  const { pool, handles } = burst;
  const { fields } = pool;
  for (let index = burst.count - 1; index >= 0; index--) {
    const handle = handles[index]!;
    if ((fields[(handle << WORDS_SHIFT) + FLAGS]! & PacketFlag.VLAN) === 0) continue;
    if (insertTag(pool, handle, HEADER_BYTES)) continue;
    untagged.count(handles, index, index + 1);
    burst.drop(index);
  }
}

type SentTally = 'offered' | 'left' | 'untagged';

/** Packets are counted before they go, for then they are somebody else's; those that stay are counted off. */
class VhostTxQueue implements PolledTxQueue {
  readonly #port: AttachedHostPort;
  readonly #queue: number;
  readonly #offered: PacketTally;
  readonly #left: PacketTally;
  readonly #untagged: PacketTally;

  constructor(port: AttachedHostPort, queue: number, { offered, left, untagged }: Record<SentTally, PacketTally>) {
    this.#port = port;
    this.#queue = queue;
    this.#offered = offered;
    this.#left = left;
    this.#untagged = untagged;
  }

  send(burst: Burst): number {
    insertTags(burst, this.#untagged);
    this.#offered.count(burst.handles, 0, burst.count);
    const sent = this.#port.send(this.#queue, burst);
    if (burst.count > 0) this.#left.count(burst.handles, 0, burst.count);
    return sent;
  }
}
