/** Both ends of one ring, of either format, over one memory, for tests of one against the other. */

import * as assert from 'uvu/assert';
import { DmaMemory } from '../../driver/memory/dma-memory.js';
import { PacketField } from '../../driver/memory/packet-fields.js';
import { PacketPool } from '../../driver/memory/packet-pool.js';
import {
  clearRing,
  openRing,
  packedRingViews,
  placeRing,
  ringBytes,
  ringViews,
} from '../../driver/net/queue-handle.js';
import type { DeviceRing, DriverRing } from '../../driver/ring/ends.js';
import { packedDeviceRing } from '../../driver/ring/packed-device-ring.js';
import { PackedRingViews } from '../../driver/ring/packed-views.js';
import { jobsNeeded, splitDeviceRing } from '../../driver/ring/split-device-ring.js';
import { AVAIL_INDEX, type SplitRingViews, USED_INDEX } from '../../driver/ring/split-views.js';
import { lowWord } from '../../driver/units.js';
import { CopyDirection, type CopyEngine, CopyJob, native } from '../../native/index.js';
import { postBuffers, reclaim } from './ring-handles.js';

export interface RingPairOptions {
  readonly size: number;
  readonly eventIndex: boolean;
  readonly indirect: boolean;
  /** Where both ends stand: an index, or on a packed ring a descriptor with the wrap counter as bit 15. */
  readonly start: number;
  readonly packed?: boolean;
  /** IN_ORDER was accepted; the device returns what it has read by the batch. */
  readonly inOrder?: boolean;
}

const HEADER_BYTES = 12;
const BURST = 64;
const POOL_SIZE = 512;

export class RingPair {
  readonly pool: PacketPool;
  readonly engine: CopyEngine;
  readonly driver: DriverRing;
  readonly device: DeviceRing;
  /** For a device that the test works by hand, in place of `device`. */
  readonly views: SplitRingViews | PackedRingViews;
  reclaimedTotal = 0;
  readonly #memory: DmaMemory;
  readonly #scratch: DmaMemory;
  readonly #lengths = new Uint32Array(4096);
  readonly #out = new Uint32Array(4096);

  constructor(options: RingPairOptions) {
    const { size, eventIndex, indirect, start, packed = false, inOrder = false } = options;
    this.#memory = DmaMemory.allocate({ bytes: ringBytes(size, true) + POOL_SIZE * 256 + 4096, pages: '4K' });
    this.#scratch = DmaMemory.allocate({ bytes: 64 * 1024, pages: '4K' });
    const ring = placeRing(this.#memory, size, indirect, packed);
    this.pool = PacketPool.create(this.#memory, { size: POOL_SIZE, bufferBytes: 256, headroom: 64 });
    clearRing(this.#memory, ring);
    this.engine = new native.CopyEngine(jobsNeeded(size, BURST));
    this.engine.setPool(this.#scratch.buffer);
    this.engine.addRegion({
      fd: this.#memory.handle.fd,
      fileOffset: 0,
      guestAddress: this.#memory.iovas.at(0),
      bytes: this.#memory.bytes,
    });
    const queue = {
      index: 0,
      ring,
      headerBytes: HEADER_BYTES,
      eventIndex,
      inOrder,
      mergeable: true,
      maxFrameBytes: 65_562,
      doorbell: { kind: 'none' } as const,
    };
    if (!packed) {
      const { avail, used } = ringViews(this.#memory, ring);
      Atomics.store(avail, AVAIL_INDEX, start);
      Atomics.store(used, USED_INDEX, start);
    }
    this.driver = openRing(this.#memory, this.pool, queue, { base: start });
    const words = new Uint32Array(this.#scratch.buffer);
    const deviceOptions = {
      engine: this.engine,
      burst: BURST,
      base: start,
      eventIndex,
      returnsBatches: inOrder,
      scratch: indirect ? { poolOffset: 0, words } : undefined,
    };
    this.views = packed ? packedRingViews(this.#memory, ring) : ringViews(this.#memory, ring);
    this.device =
      this.views instanceof PackedRingViews
        ? packedDeviceRing(this.views, deviceOptions)
        : splitDeviceRing(this.views, deviceOptions);
  }

  /** Posts packets of `segments` segments each as far as they fit; returns their handles. */
  postPackets(count: number, segments: number): number[] {
    const posted: number[] = [];
    const handles = new Uint32Array(segments);
    for (let index = 0; index < count && this.pool.allocate(handles, 0, segments); index++) {
      for (let segment = 0; segment < segments; segment++) {
        const field = handles[segment]! * PacketField.WORDS;
        this.pool.fields[field + PacketField.SEGMENT_LENGTH] = 20 + segment;
        this.pool.fields[field + PacketField.NEXT] = segment + 1 < segments ? handles[segment + 1]! + 1 : 0;
      }
      if (this.driver.postPackets(handles, 0, 1) === 0) {
        this.pool.free(handles, 0, 1);
        break;
      }
      posted.push(handles[0]!);
    }
    return posted;
  }

  /** Posts empty buffers as far as they fit; returns their handles. */
  postBuffers(count: number): number[] {
    const handles = new Uint32Array(count);
    if (!this.pool.allocate(handles, 0, count)) return [];
    const taken = postBuffers(this.driver, this.pool, handles, 0, count);
    this.pool.freeBuffers(handles, taken, count - taken);
    const posted = [...handles.subarray(0, taken)];
    return posted;
  }

  /** Asserts that popped chain `chain` is the packet or buffer `handle`; returns a length to return it with. */
  checkChain(chain: number, handle: number): number {
    const { jobs } = this.engine;
    const first = this.device.firstJob[chain]!;
    const end = this.device.firstJob[chain + 1]!;
    const at = first * CopyJob.WORDS;
    const base = this.#memory.iovas.at(
      this.pool.offset + handle * this.pool.bufferBytes + this.pool.headroom - HEADER_BYTES,
    );
    assert.is(jobs[at + CopyJob.GUEST_LOW], lowWord(base), 'the chain is the oldest that was posted');
    if (jobs[at + CopyJob.DIRECTION] === CopyDirection.TO_GUEST) {
      assert.is(end - first, 1);
      return (handle % 100) + 1;
    }
    let segment = handle;
    for (let job = first; job < end; job++) {
      const expected = 20 + (job - first) + (job === first ? HEADER_BYTES : 0);
      assert.is(jobs[job * CopyJob.WORDS + CopyJob.LENGTH], expected);
      const next = this.pool.fields[segment * PacketField.WORDS + PacketField.NEXT]!;
      assert.is(next === 0, job === end - 1, 'every segment, and no more');
      segment = next - 1;
    }
    return 0;
  }

  /** What the device says of a receive buffer that it skips: it is full. */
  get wholeLength(): number {
    return this.pool.bufferBytes - this.pool.headroom + HEADER_BYTES;
  }

  returnChains(count: number, lengths: readonly number[]): void {
    this.#lengths.set(lengths);
    this.device.returnChains(this.#lengths, count);
  }

  /** Reclaims up to `count` chains and asserts that they are the next of `returned`. */
  reclaimAndCheck(count: number, returned: readonly { handle: number; length: number }[] | undefined): void {
    const lengths = new Uint32Array(count);
    const reclaimed = reclaim(this.driver, this.#out, lengths, 0, count);
    for (let index = 0; index < reclaimed; index++) {
      if (returned !== undefined) {
        const expected = returned[this.reclaimedTotal + index];
        assert.ok(expected !== undefined, 'nothing comes back that was not returned');
        assert.is(this.#out[index], expected.handle);
        assert.is(lengths[index], expected.length);
      }
    }
    this.pool.free(this.#out, 0, reclaimed);
    this.reclaimedTotal += reclaimed;
  }

  [Symbol.dispose](): void {
    this.engine.close();
    this.#memory.close();
    this.#scratch.close();
  }
}
