/** Both ends of a small split ring over one memory, made anew as often as a test likes, at any index. */

import { DmaMemory } from '../../driver/memory/dma-memory.js';
import { PacketField } from '../../driver/memory/packet-fields.js';
import { PacketPool } from '../../driver/memory/packet-pool.js';
import {
  openRing,
  placeRing,
  type QueueHandle,
  type RingPlace,
  ringBytes,
  ringViews,
} from '../../driver/net/queue-handle.js';
import type { DeviceRing, DriverRing } from '../../driver/ring/ends.js';
import { jobsNeeded, splitDeviceRing } from '../../driver/ring/split-device-ring.js';
import { AVAIL_INDEX, type SplitRingViews, USED_INDEX } from '../../driver/ring/split-views.js';
import { highWord, iova, lowWord } from '../../driver/units.js';
import { type CopyEngine, CopyJob, native } from '../../native/index.js';

export interface SmallRingOptions {
  readonly size: number;
  readonly eventIndex: boolean;
  readonly indirect: boolean;
  /** Index that both ends stand at. */
  readonly base: number;
  /** Half of the buffers are below a multiple of 4 GiB and half above: the high words of their addresses differ. */
  readonly splitAddresses?: boolean;
}

/** Chains that one `pop` looks at. */
export const BURST = 8;
export const HEADER_BYTES = 12;
const POOL_SIZE = 32;
const BUFFER_BYTES = 256;

export class SmallRing {
  readonly options: SmallRingOptions;
  readonly pool: PacketPool;
  readonly engine: CopyEngine;
  readonly views: SplitRingViews;
  readonly #memory: DmaMemory;
  readonly #scratch: DmaMemory;
  readonly #place: RingPlace;
  /** Where both ends stand when a test takes them up. */
  index = 0;
  driver!: DriverRing;
  device!: DeviceRing;

  constructor(options: SmallRingOptions) {
    const { size, indirect, splitAddresses = false } = options;
    this.options = options;
    const poolBytes = POOL_SIZE * BUFFER_BYTES;
    this.#memory = DmaMemory.allocate({
      bytes: ringBytes(size, true) + poolBytes,
      pages: '4K',
      iovaBase: iova(0x2_0000_0000n - BigInt(splitAddresses ? poolBytes / 2 : 0)),
    });
    this.#scratch = DmaMemory.allocate({ bytes: 4096, pages: '4K' });
    this.pool = PacketPool.create(this.#memory, { size: POOL_SIZE, bufferBytes: BUFFER_BYTES, headroom: 64 });
    this.#place = placeRing(this.#memory, size, indirect);
    this.views = ringViews(this.#memory, this.#place);
    this.engine = new native.CopyEngine(jobsNeeded(size, BURST));
    this.engine.setPool(this.#scratch.buffer);
    this.engine.addRegion({ ...this.#memory.range, guestAddress: this.#memory.iovas.at(0) });
    this.renew();
  }

  /** Clears the memory and puts two fresh ends over it, at the index of the options. */
  renew(): void {
    const { base, eventIndex, indirect } = this.options;
    this.index = base;
    this.views.clear();
    Atomics.store(this.views.avail, AVAIL_INDEX, base);
    Atomics.store(this.views.used, USED_INDEX, base);
    const queue: QueueHandle = {
      index: 0,
      ring: this.#place,
      headerBytes: HEADER_BYTES,
      eventIndex,
      mergeable: true,
      maxFrameBytes: 65_562,
      doorbell: { kind: 'none' },
    };
    this.driver = openRing(this.#memory, this.pool, queue, { base });
    this.device = splitDeviceRing(this.views, {
      engine: this.engine,
      burst: BURST,
      base,
      eventIndex,
      scratch: indirect ? { poolOffset: 0, words: new Uint32Array(this.#scratch.buffer) } : undefined,
    });
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

  /** What a job of the device must say: low and high word of the address, length, direction. */
  job(number: number): readonly number[] {
    const { jobs } = this.engine;
    const at = number * CopyJob.WORDS;
    return [
      jobs[at + CopyJob.GUEST_LOW]!,
      jobs[at + CopyJob.GUEST_HIGH]!,
      jobs[at + CopyJob.LENGTH]!,
      jobs[at + CopyJob.DIRECTION]!,
    ];
  }

  /** Low and high word of the device's address of byte `offset` of a buffer. */
  address(handle: number, offset: number): readonly [low: number, high: number] {
    const address = this.#memory.iovas.at(this.pool.offset + handle * this.pool.bufferBytes + offset);
    return [lowWord(address), highWord(address)];
  }

  [Symbol.dispose](): void {
    this.engine.close();
    this.#memory.close();
    this.#scratch.close();
  }
}

/** Bytes of a segment, different ones for neighbours, so that a mix-up shows. */
export const segmentBytes = (first: number, segment: number): number => 14 + 3 * first + segment;
