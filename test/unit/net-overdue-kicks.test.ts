/** What an overdue kick tells of a ring with NOTIFICATION_DATA: how far it is, not how far it was (virtio 1.2 §2.9, §4.1.5.2.1). */

import { closeSync, openSync, readSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { Burst } from '../../driver/memory/burst.js';
import { DmaMemory } from '../../driver/memory/dma-memory.js';
import { PacketField } from '../../driver/memory/packet-fields.js';
import { PacketPool } from '../../driver/memory/packet-pool.js';
import { OverdueKicks } from '../../driver/net/overdue-kicks.js';
import {
  clearRing,
  openRing,
  packedRingViews,
  placeRing,
  type QueueHandle,
  ringBytes,
  ringViews,
} from '../../driver/net/queue-handle.js';
import { RxQueue } from '../../driver/net/rx-queue.js';
import { QueueCounters } from '../../driver/net/statistics.js';
import { TxQueue } from '../../driver/net/tx-queue.js';
import { PACKED_FLAGS_SHIFT } from '../../driver/ring/packed-views.js';
import { USED_FLAGS } from '../../driver/ring/split-views.js';
import { RingEvent, UsedFlag } from '../../driver/spec/ring.js';
import { withFolder } from '../support/temp-folder.js';

const test = suite('overdue kicks');

const SIZE = 8;
const INDEX = 1;
const UNTOLD = 0xdead_beef;

/** A transmit queue whose doorbell is 32 bits of a file, and what the control plane has of it. */
class Bench {
  readonly kicks: OverdueKicks;
  readonly counters = QueueCounters.create(2);
  readonly pool: PacketPool;
  readonly handle: QueueHandle;
  readonly #memory: DmaMemory;
  readonly #fd: number;

  constructor(folder: string, packed: boolean) {
    this.#fd = openSync(join(folder, 'doorbell'), 'w+');
    this.#memory = DmaMemory.allocate({ bytes: ringBytes(SIZE, true) + 32 * 256 + 4096, pages: '4K' });
    this.pool = PacketPool.create(this.#memory, { size: 32, bufferBytes: 256, headroom: 64 });
    this.handle = {
      index: INDEX,
      ring: placeRing(this.#memory, SIZE, false, packed),
      headerBytes: 12,
      eventIndex: false,
      mergeable: true,
      maxFrameBytes: 1514,
      doorbell: { kind: 'file', fd: this.#fd, position: 0, width: 32, value: INDEX },
    };
    this.kicks = new OverdueKicks(this.counters);
    this.forget();
  }

  /** A queue over a fresh ring, as each start of the port makes it. */
  open(Queue: typeof TxQueue): TxQueue;
  open(Queue: typeof RxQueue): RxQueue;
  open(Queue: typeof TxQueue | typeof RxQueue): TxQueue | RxQueue {
    clearRing(this.#memory, this.handle.ring);
    this.kicks.begin([this.handle]);
    const ring = openRing(this.#memory, this.pool, this.handle);
    const queue = new Queue(this.pool, ring, this.counters.of(INDEX), this.handle);
    this.kicks.start([this.handle]);
    return queue;
  }

  /** Says whether the device wants kicks. */
  wantKicks(wants: boolean): void {
    const { ring } = this.handle;
    if (ring.packed) {
      const event = wants ? RingEvent.ENABLE : RingEvent.DISABLE;
      Atomics.store(packedRingViews(this.#memory, ring).deviceEvent, 0, event << PACKED_FLAGS_SHIFT);
    } else Atomics.store(ringViews(this.#memory, ring).used, USED_FLAGS, wants ? 0 : UsedFlag.NO_NOTIFY);
  }

  send(queue: TxQueue, packets: number): void {
    const burst = new Burst(this.pool, packets);
    assert.ok(this.pool.allocate(burst.handles, 0, packets));
    burst.count = packets;
    for (const handle of burst.handles.subarray(0, packets)) {
      this.pool.fields[handle * PacketField.WORDS + PacketField.SEGMENT_LENGTH] = 60;
    }
    assert.is(queue.send(burst), packets);
  }

  forget(): void {
    writeSync(this.#fd, new Uint8Array(Uint32Array.of(UNTOLD).buffer), 0, 4, 0);
  }

  /** The last notification, of 32 bits: queue in the low half, position in the high one. */
  get told(): number {
    const word = new Uint32Array(1);
    readSync(this.#fd, new Uint8Array(word.buffer), 0, 4, 0);
    return word[0]!;
  }

  async overdue(): Promise<number> {
    this.forget();
    for (let waited = 0; waited < 3000 && this.told === UNTOLD; waited += 10) await delay(10);
    return this.told;
  }

  [Symbol.dispose](): void {
    this.kicks.stop();
    this.#memory.close();
    closeSync(this.#fd);
  }
}

const told = (position: number): number => ((position << 16) | INDEX) >>> 0;

for (const packed of [false, true]) {
  const format = packed ? 'packed' : 'split';
  /** Position after so many descriptors: on a packed ring the offset, with the wrap counter in bit 15. */
  const after = (descriptors: number): number =>
    packed ? (descriptors % SIZE) | (Math.floor(descriptors / SIZE) % 2 === 0 ? 0x8000 : 0) : descriptors;

  test(`${format}: after a kick that was saved and one that was sent, it tells of what was sent`, () =>
    withFolder(async (folder) => {
      using bench = new Bench(folder, packed);
      const queue = bench.open(TxQueue);
      bench.wantKicks(false);
      bench.send(queue, 2);
      assert.is(await bench.overdue(), told(after(2)));
      bench.send(queue, 1);
      bench.wantKicks(true);
      bench.send(queue, 2);
      assert.is(bench.told, told(after(5)), 'sent at once');
      assert.is(await bench.overdue(), told(after(5)), 'and once more, for the one that was saved');
      queue.close();
    }));

  test(`${format}: it tells the same after statistics were reset`, () =>
    withFolder(async (folder) => {
      using bench = new Bench(folder, packed);
      const queue = bench.open(TxQueue);
      bench.wantKicks(false);
      bench.send(queue, 3);
      bench.counters.reset();
      assert.is(await bench.overdue(), told(after(3)));
      queue.close();
    }));

  test(`${format}: after another start it tells of the fresh ring, whether somebody polls the queue or not`, () =>
    withFolder(async (folder) => {
      using bench = new Bench(folder, packed);
      const queue = bench.open(TxQueue);
      bench.wantKicks(false);
      bench.send(queue, 5);
      queue.close();
      bench.open(TxQueue).close();
      assert.is(await bench.overdue(), told(after(0)));
    }));

  test(`${format}: of a receive queue it tells how many buffers there are, over the wrap too`, () =>
    withFolder(async (folder) => {
      using bench = new Bench(folder, packed);
      const queue = bench.open(RxQueue);
      assert.is(await bench.overdue(), told(after(SIZE)));
      queue.close();
    }));
}

test.run();
