/** A port of the back-end by itself: packets in, packets out, without a device. */

import * as assert from 'uvu/assert';
import type { BackendPort, BackendPortModule } from '../../driver/backend/ports/backend-port.js';
import { Burst } from '../../driver/memory/burst.js';
import { DmaMemory } from '../../driver/memory/dma-memory.js';
import { PacketField } from '../../driver/memory/packet-fields.js';
import { DEFAULT_HEADROOM, PacketPool } from '../../driver/memory/packet-pool.js';
import { PacketView } from '../../driver/memory/packet-view.js';

export interface HarnessOptions {
  readonly queuePairs?: number;
  /** Pairs of the port's thread. */
  readonly pairs?: readonly number[];
  readonly bufferBytes?: number;
  readonly headroom?: number;
  readonly poolSize?: number;
  /** Bytes of a segment of the packets that go in. What a buffer takes when not given. */
  readonly segmentBytes?: number;
}

/** What bytes hold that no packet is in: an answer that has them was read from where nothing may be read. */
const CANARY = 0xc5;

export class PortHarness {
  readonly pool: PacketPool;
  readonly port: BackendPort;
  /** What the port reported. */
  readonly reports: string[] = [];
  readonly #memory: DmaMemory;
  readonly #burst: Burst;
  readonly #view: PacketView;
  readonly #segmentBytes: number;
  #closed = false;

  constructor(module: BackendPortModule, options: object, harness: HarnessOptions = {}) {
    const { queuePairs = 1, bufferBytes = 2240, poolSize = 256, headroom = DEFAULT_HEADROOM } = harness;
    this.#memory = DmaMemory.allocate({ bytes: poolSize * bufferBytes, pages: '4K' });
    this.pool = PacketPool.create(this.#memory, { size: poolSize, bufferBytes, headroom });
    this.pool.bytes.fill(CANARY);
    this.#burst = new Burst(this.pool, 64);
    this.#view = new PacketView(this.pool);
    this.#segmentBytes = harness.segmentBytes ?? this.pool.dataBytes;
    try {
      const report = (reason: string): unknown => this.reports.push(reason);
      const { pairs } = harness;
      const context = { pool: this.pool, queuePairs, pairs, report: report as (reason: string) => void };
      this.port = module.createPort(context, options as never);
    } catch (error) {
      this.#memory.close();
      throw error;
    }
  }

  /** Puts a packet into buffers; returns its handle. */
  make(bytes: Uint8Array, flags = 0): number {
    const { pool } = this;
    const handles = new Uint32Array(Math.max(1, Math.ceil(bytes.length / this.#segmentBytes)));
    assert.ok(pool.allocate(handles, 0, handles.length), 'the pool has buffers');
    for (const [index, handle] of handles.entries()) {
      const part = bytes.subarray(index * this.#segmentBytes, (index + 1) * this.#segmentBytes);
      this.#view.move(handle).fill(part);
      pool.fields[handle * PacketField.WORDS + PacketField.NEXT] = (handles[index + 1] ?? -1) + 1;
    }
    pool.fields[handles[0]! * PacketField.WORDS + PacketField.PACKET_LENGTH] = bytes.length;
    pool.fields[handles[0]! * PacketField.WORDS + PacketField.FLAGS] = flags;
    return handles[0]!;
  }

  /** Has the port bounce packets; returns what goes back. Every buffer is free again afterwards. */
  bounce(packets: readonly Uint8Array[], pair = 0, flags = 0): Uint8Array[] {
    const burst = this.#burst;
    const before = this.pool.available;
    // Stands for one that waits from an earlier call.
    const waiting = this.make(Uint8Array.of(1, 2, 3));
    const back: Uint8Array[] = [];
    for (let first = 0; first < packets.length; first += 32) {
      burst.handles[0] = waiting;
      burst.count = 1;
      for (const packet of packets.slice(first, first + 32)) burst.handles[burst.count++] = this.make(packet, flags);
      this.port.bounce!(burst, 1, pair);
      assert.is(burst.handles[0], waiting, 'what waited stays where it was');
      burst.handles.copyWithin(0, 1, burst.count--);
      back.push(...this.#take());
    }
    this.pool.free(Uint32Array.of(waiting), 0, 1);
    assert.is(this.pool.available, before, 'no buffer is lost');
    return back;
  }

  /** Has one packet of `make` bounced; returns the answer, once `look` has seen its fields. */
  bounceHandle(handle: number, look: (fields: Uint32Array) => void = () => undefined): Uint8Array | undefined {
    const { fields } = this.pool;
    this.#burst.handles[0] = handle;
    this.#burst.count = 1;
    this.port.bounce!(this.#burst, 0, 0);
    const at = handle * PacketField.WORDS;
    if (this.#burst.count > 0) look(fields.subarray(at, at + PacketField.WORDS));
    return this.#take()[0];
  }

  /** Gives packets to the port as a guest's. */
  give(packets: readonly Uint8Array[], pair = 0): void {
    for (let first = 0; first < packets.length; first += 32) {
      for (const packet of packets.slice(first, first + 32)) {
        this.#burst.handles[this.#burst.count++] = this.make(packet);
      }
      this.port.fromGuest(this.#burst, pair);
      assert.is(this.#burst.count, 0, 'the port takes all');
    }
  }

  /** One turn's packets for the guest, `most` of them at most. */
  turn(pair = 0, most = 64): Uint8Array[] {
    const burst = most === 64 ? this.#burst : new Burst(this.pool, most);
    this.port.toGuest(burst, pair);
    return this.#take(burst);
  }

  #take(burst = this.#burst): Uint8Array[] {
    const packets = Array.from({ length: burst.count }, (_, index) => burst.bytes(index).copyPacket());
    burst.free();
    return packets;
  }

  /** Closes the port; nothing it held stays out of the pool. */
  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    try {
      this.port.close();
      this.pool.flush();
      assert.is(this.pool.available, this.pool.size, 'the port gives every buffer back');
    } finally {
      this.#memory.close();
    }
  }

  [Symbol.dispose](): void {
    this.close();
  }
}
