/** A handful of packets on their way: an array of handles and a count. */

import { ErrorCode, VirtioError } from '../errors.js';
import { PacketField } from './packet-fields.js';
import type { PacketPool } from './packet-pool.js';
import { PacketView } from './packet-view.js';

/** Largest burst, as in testpmd. */
export const MAX_BURST = 512;

/** Packets `handles[0]` to `handles[count - 1]` of one pool. The burst owns them until they are sent or freed. */
export class Burst {
  readonly pool: PacketPool;
  readonly handles: Uint32Array;
  readonly capacity: number;
  count = 0;
  /** Packets dropped by `free`, ever. */
  dropped = 0;
  readonly #view: PacketView;

  /** @throws VirtioError INVALID_ARGUMENT unless the capacity is 1 to 512 */
  constructor(pool: PacketPool, capacity: number) {
    if (!Number.isInteger(capacity) || capacity < 1 || capacity > MAX_BURST) {
      throw new VirtioError(ErrorCode.INVALID_ARGUMENT, `a burst holds 1 to ${MAX_BURST} packets, not ${capacity}`, {
        value: capacity,
      });
    }
    this.pool = pool;
    this.capacity = capacity;
    this.handles = new Uint32Array(capacity);
    this.#view = new PacketView(pool);
  }

  /** Adds up to `count` new, empty packets; all or none. Returns how many: 0 when the pool or the burst has no room. */
  allocate(count: number): number {
    if (this.count + count > this.capacity || !this.pool.allocate(this.handles, this.count, count)) return 0;
    this.count += count;
    return count;
  }

  /** The one view of this burst, moved over packet `index`. */
  bytes(index: number): PacketView {
    if (index < 0 || index >= this.count) throw new RangeError(`packet ${index} is outside the burst of ${this.count}`);
    return this.#view.move(this.handles[index]!);
  }

  /** Bytes of all packets. */
  get bytesTotal(): number {
    const { fields } = this.pool;
    let bytes = 0;
    for (let index = 0; index < this.count; index++) {
      bytes += fields[this.handles[index]! * PacketField.WORDS + PacketField.PACKET_LENGTH]!;
    }
    return bytes;
  }

  /** Forgets the first `count` packets (somebody else owns them now) and moves the rest to the front. */
  removeFirst(count: number): void {
    this.handles.copyWithin(0, count, this.count);
    this.count -= count;
  }

  /** Gives packet `index` back to the pool, counts it as dropped, and moves those behind it up. */
  drop(index: number): void {
    if (!(index >= 0 && index < this.count))
      throw new RangeError(`packet ${index} is outside the burst of ${this.count}`);
    this.pool.free(this.handles, index, 1);
    this.handles.copyWithin(index, index + 1, this.count);
    this.count--;
    this.dropped++;
  }

  /** Gives all packets back to the pool and counts them as dropped. */
  free(): void {
    if (this.count === 0) return;
    this.pool.free(this.handles, 0, this.count);
    this.dropped += this.count;
    this.count = 0;
  }
}
