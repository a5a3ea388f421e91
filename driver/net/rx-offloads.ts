/** What the headers of received packets say, put into the packets' fields; tags and checksums that no device sees to. */

import type { Burst } from '../memory/burst.js';
import { PacketBytes } from '../memory/packet-bytes.js';
import { PacketField, PacketFlag } from '../memory/packet-fields.js';
import type { PacketPool } from '../memory/packet-pool.js';
import { ChecksumVerdict, verifyChecksums } from '../offload/checksum.js';
import { HeaderVerdict, NetHeaderReader } from '../offload/header.js';
import { PacketLayers } from '../offload/packet-layers.js';
import { stripTag } from '../offload/vlan.js';
import type { QueueHandle } from './queue-handle.js';
import type { RxWork } from './queue-work.js';
import { QueueCounter } from './statistics.js';

const { PACKET_LENGTH, FLAGS, WORDS_SHIFT } = PacketField;
const { DROP_OFFLOAD } = QueueCounter;

/** One queue's; allocates nothing. */
export class RxOffloads implements RxWork {
  readonly #pool: PacketPool;
  readonly #counters: Float64Array;
  readonly #reader: NetHeaderReader;
  readonly #packet: PacketBytes;
  readonly #layers = new PacketLayers();
  /** Where the header of buffer 0 is. */
  readonly #headerAt: number;
  readonly #strips: boolean;
  readonly #verifies: boolean;

  constructor(pool: PacketPool, { headerBytes, offloads }: QueueHandle, counters: Float64Array) {
    this.#pool = pool;
    this.#counters = counters;
    this.#reader = new NetHeaderReader(pool, offloads?.flags ?? 0);
    this.#packet = new PacketBytes(pool);
    this.#headerAt = pool.offset + pool.headroom - headerBytes;
    this.#strips = offloads?.stripsTags ?? false;
    this.#verifies = offloads?.verifiesChecksums ?? false;
  }

  finish(burst: Burst, start: number): number {
    const pool = this.#pool;
    const { fields } = pool;
    const { handles, count } = burst;
    let dropped = 0;
    let to = start;
    for (let index = start; index < count; index++) {
      const handle = handles[index]!;
      if (this.#reader.read(handle, this.#headerAt + Math.imul(handle, pool.bufferBytes)) !== HeaderVerdict.SOUND) {
        this.#counters[DROP_OFFLOAD]! += 1;
        dropped += fields[(handle << WORDS_SHIFT) + PACKET_LENGTH]!;
        pool.free(handles, index, 1);
        continue;
      }
      if (this.#verifies) this.#verify(handle);
      if (this.#strips) stripTag(pool, handle);
      handles[to++] = handle;
    }
    burst.count = to;
    return dropped;
  }

  #verify(handle: number): void {
    const packet = this.#packet.move(handle);
    if (verifyChecksums(packet, this.#layers.parse(packet)) !== ChecksumVerdict.RIGHT) return;
    this.#pool.fields[(handle << WORDS_SHIFT) + FLAGS]! |= PacketFlag.CHECKSUM_VALID;
  }
}
