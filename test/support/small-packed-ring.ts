/** The driver's end of a small packed ring and a plain device over one memory, made anew as often as a test likes. */

import { DmaMemory } from '../../driver/memory/dma-memory.js';
import { PacketField } from '../../driver/memory/packet-fields.js';
import { PacketPool } from '../../driver/memory/packet-pool.js';
import {
  clearRing,
  openRing,
  packedRingViews,
  placeRing,
  type QueueHandle,
  type RingPlace,
  ringBytes,
} from '../../driver/net/queue-handle.js';
import type { DriverRing } from '../../driver/ring/ends.js';
import type { PackedRingViews } from '../../driver/ring/packed-views.js';
import { iova } from '../../driver/units.js';
import { PlainPackedDevice } from './plain-packed-device.js';
import { HEADER_BYTES, segmentBytes } from './small-ring.js';

export interface SmallPackedRingOptions {
  readonly size: number;
  readonly eventIndex: boolean;
  readonly indirect: boolean;
  /** Where both ends stand: descriptor and wrap counter. */
  readonly offset?: number;
  readonly wrap?: boolean;
  /** Half of the buffers are below a multiple of 4 GiB and half above. */
  readonly splitAddresses?: boolean;
}

const POOL_SIZE = 64;
const BUFFER_BYTES = 256;
const HEADROOM = 64;
/** Bytes of an empty buffer that is posted. */
export const POSTED_BYTES = BUFFER_BYTES - HEADROOM + HEADER_BYTES;

export class SmallPackedRing {
  readonly options: SmallPackedRingOptions;
  readonly pool: PacketPool;
  readonly views: PackedRingViews;
  readonly place: RingPlace;
  readonly #memory: DmaMemory;
  driver!: DriverRing;
  device!: PlainPackedDevice;

  constructor(options: SmallPackedRingOptions) {
    const { size, indirect, splitAddresses = false } = options;
    this.options = options;
    const poolBytes = POOL_SIZE * BUFFER_BYTES;
    this.#memory = DmaMemory.allocate({
      bytes: ringBytes(size, true) + poolBytes,
      pages: '4K',
      iovaBase: iova(0x2_0000_0000n - BigInt(splitAddresses ? poolBytes / 2 : 0)),
    });
    this.pool = PacketPool.create(this.#memory, { size: POOL_SIZE, bufferBytes: BUFFER_BYTES, headroom: HEADROOM });
    this.place = placeRing(this.#memory, size, indirect, true);
    this.views = packedRingViews(this.#memory, this.place);
    this.renew();
  }

  /** Clears the memory and puts two fresh ends over it, or two that go on where `offset` and `wrap` are. */
  renew(offset = this.options.offset ?? 0, wrap = this.options.wrap ?? true): void {
    const { eventIndex, indirect } = this.options;
    clearRing(this.#memory, this.place);
    const queue: QueueHandle = {
      index: 0,
      ring: this.place,
      headerBytes: HEADER_BYTES,
      eventIndex,
      mergeable: true,
      maxFrameBytes: 65_562,
      doorbell: { kind: 'none' },
    };
    this.driver = openRing(this.#memory, this.pool, queue, { base: offset | (wrap ? 0x8000 : 0) });
    const ring = { ...this.place, buffer: this.#memory.buffer };
    this.device = new PlainPackedDevice(ring, indirect, (address) => this.offsetOf(address), offset, wrap);
  }

  /** Makes buffer `first` a packet of `segments` segments in the buffers that follow it. */
  setPacket(first: number, segments: number): void {
    const { fields, headroom } = this.pool;
    for (let segment = 0; segment < segments; segment++) {
      const field = (first + segment) * PacketField.WORDS;
      fields[field + PacketField.DATA_OFFSET] = headroom;
      fields[field + PacketField.SEGMENT_LENGTH] = segmentBytes(first, segment);
      fields[field + PacketField.PACKET_LENGTH] = 0;
      fields[field + PacketField.NEXT] = segment + 1 < segments ? first + segment + 2 : 0;
    }
  }

  /** The device's address of byte `offset` of a buffer. */
  address(handle: number, offset: number): bigint {
    return this.#memory.iovas.at(this.pool.offset + handle * BUFFER_BYTES + offset);
  }

  /** Where in the memory an address of the device is. */
  offsetOf(address: bigint): number {
    return Number(address - this.#memory.iovas.at(0));
  }

  [Symbol.dispose](): void {
    this.#memory.close();
  }
}
