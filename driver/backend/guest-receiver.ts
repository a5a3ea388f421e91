/** The guest behind a device, for packets of other guests on the same poll thread that need no stop on their way to it. */

import type { GuestMemory } from './guest-memory.js';
import type { GuestQueues } from './guest-queues.js';
import { deviceFailure, type GuestRings } from './guest-rings.js';
import type { PeekedPackets } from './peeked-packets.js';
import type { DirectReceiver } from './ports/routing-port.js';
import type { ReceiveFilter } from './receive-filter.js';
import type { ReceiveSteering } from './receive-steering.js';
import type { SharedState } from './shared-state.js';

export interface GuestReceiverParts {
  readonly queues: GuestQueues;
  readonly rings: GuestRings;
  readonly memory: GuestMemory;
  readonly filter: ReceiveFilter;
  readonly shared: SharedState;
  readonly steering: ReceiveSteering;
}

export class GuestReceiver implements DirectReceiver {
  readonly #parts: GuestReceiverParts;

  constructor(parts: GuestReceiverParts) {
    this.#parts = parts;
  }

  isReady(number: number): boolean {
    const { queues, rings, memory, shared, steering } = this.#parts;
    const pair = queues.byNumber[number];
    if (pair?.receive === undefined) return false;
    return (
      pair.waiting.count === 0 &&
      !pair.completed.isWaiting &&
      pair.receive.relay.isUsual &&
      rings.isEnabled(2 * number) &&
      number < shared.activePairs &&
      // Where a packet goes, and what is said of it, is found out on the way over the pair's burst.
      !steering.isByTable &&
      !(queues.reportsHashes && steering.isHashing) &&
      // What waits for a translation, and what is logged, goes the way that knows of it.
      !memory.isTranslated &&
      !memory.isLogged
    );
  }

  give(number: number, source: PeekedPackets, packets: Uint16Array, count: number): number {
    const { queues, rings, filter } = this.#parts;
    const wanted = filter.isActive ? filter.leading(source.handles, packets, count) : count;
    if (wanted === 0) return 0;
    try {
      return queues.byNumber[number]!.receive!.relay.give(source, packets, wanted);
    } catch (error) {
      // It is the turn of another guest, who has nothing to do with it.
      rings.fail(deviceFailure(error));
      return 0;
    }
  }
}
