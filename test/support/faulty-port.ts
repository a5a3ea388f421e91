/** A port of the back-end that returns packets as `echo` does, but for one of them, or by another pair. */

import type { BackendPort, BackendPortContext } from '../../driver/backend/ports/backend-port.js';
import { PacketQueue } from '../../driver/backend/ports/packet-queue.js';
import type { Burst } from '../../driver/memory/burst.js';
import { PacketField } from '../../driver/memory/packet-fields.js';
import type { PacketPool } from '../../driver/memory/packet-pool.js';

/**
 * What is done to packet number `packet`, counted from 0 on each pair; or to all of them: they come to nothing, or back on
 * the first pair, whichever they were sent on.
 */
export interface Fault {
  readonly kind: 'none' | 'corrupt' | 'shorten' | 'drop' | 'swap' | 'swallow-all' | 'one-pair';
  readonly packet: number;
  /** `corrupt`: the byte that is inverted. */
  readonly byte?: number;
}

export function createPort(context: BackendPortContext, fault: Fault): BackendPort {
  return new FaultyPort(context, fault);
}

class FaultyPort implements BackendPort {
  readonly #pool: PacketPool;
  readonly #fault: Fault;
  readonly #queues: readonly PacketQueue[];
  readonly #seen: number[];

  constructor(context: BackendPortContext, fault: Fault) {
    this.#pool = context.pool;
    this.#fault = fault;
    this.#queues = Array.from({ length: context.queuePairs }, () => new PacketQueue(2048));
    this.#seen = this.#queues.map(() => 0);
  }

  room(pair: number): number {
    return this.#queues[this.#fault.kind === 'one-pair' ? 0 : pair]!.room;
  }

  fromGuest(burst: Burst, pair: number): void {
    const { kind, packet, byte = 40 } = this.#fault;
    const index = packet - this.#seen[pair]!;
    this.#seen[pair]! += burst.count;
    const { handles, pool } = burst;
    if (kind === 'swallow-all') {
      burst.free();
      return;
    }
    if (index >= 0 && index < burst.count) {
      const handle = handles[index]!;
      const field = handle * PacketField.WORDS;
      const at = pool.offset + handle * pool.bufferBytes + pool.fields[field + PacketField.DATA_OFFSET]!;
      if (kind === 'corrupt') pool.bytes[at + byte]! ^= 0xff;
      if (kind === 'shorten') {
        pool.fields[field + PacketField.SEGMENT_LENGTH]! -= 1;
        pool.fields[field + PacketField.PACKET_LENGTH]! -= 1;
      }
      if (kind === 'drop') {
        pool.free(handles, index, 1);
        handles.copyWithin(index, index + 1, burst.count);
        burst.count--;
      }
      if (kind === 'swap' && index + 1 < burst.count) {
        handles[index] = handles[index + 1]!;
        handles[index + 1] = handle;
      }
    }
    this.#queues[kind === 'one-pair' ? 0 : pair]!.takeFrom(burst);
  }

  toGuest(burst: Burst, pair: number): void {
    this.#queues[pair]!.moveTo(burst);
  }

  close(): void {
    for (const queue of this.#queues) queue.free(this.#pool);
  }
}
