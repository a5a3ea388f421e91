/** `net_vhost` on an lcore: the rings of the guest that are there. */

import { AttachedHostPort } from '../../../backend/host-thread.js';
import { type PacketTally, packetTally, talliesOf } from '../../../net/packet-tally.js';
import type { Burst } from '../../../thread.js';
import type { LcoreContextOfPort, PolledPort, PolledRxQueue, PolledTxQueue } from '../lcore/polled-port.js';

/** What an lcore is given. */
export interface VhostQueues {
  /** Where packets are counted by size (`createTallies`): `VhostTally.PLACES` for each queue. */
  readonly tallies: SharedArrayBuffer;
}

/** Places of a queue's tallies: what was received, what was to be sent, and what of that the guest had no buffers for. */
export const VhostTally = { RECEIVED: 0, OFFERED: 1, LEFT: 2, PLACES: 3 } as const;

export function attachPort(context: LcoreContextOfPort, { tallies }: VhostQueues): PolledPort {
  const { pool, onRequest, emit } = context;
  const port = new AttachedHostPort({ pool, onRequest: (type, handler) => onRequest(type, handler), emit });
  const tally = (queue: number, place: number): PacketTally =>
    packetTally(pool, talliesOf(tallies, VhostTally.PLACES * queue + place));
  return {
    rxQueue: (queue) => new VhostRxQueue(port, queue, tally(queue, VhostTally.RECEIVED)),
    txQueue: (queue) => new VhostTxQueue(port, queue, tally(queue, VhostTally.OFFERED), tally(queue, VhostTally.LEFT)),
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

/** Packets are counted before they go, for then they are somebody else's; those that stay are counted off. */
class VhostTxQueue implements PolledTxQueue {
  readonly #port: AttachedHostPort;
  readonly #queue: number;
  readonly #offered: PacketTally;
  readonly #left: PacketTally;

  constructor(port: AttachedHostPort, queue: number, offered: PacketTally, left: PacketTally) {
    this.#port = port;
    this.#queue = queue;
    this.#offered = offered;
    this.#left = left;
  }

  send(burst: Burst): number {
    this.#offered.count(burst.handles, 0, burst.count);
    const sent = this.#port.send(this.#queue, burst);
    if (burst.count > 0) this.#left.count(burst.handles, 0, burst.count);
    return sent;
  }
}
