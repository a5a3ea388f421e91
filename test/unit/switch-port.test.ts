/** The switch as a port of devices: guests over raw rings, joined by name; pairs that go to another thread. */

import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import type { BackendPort } from '../../driver/backend/ports/backend-port.js';
import { createPort, type SwitchOptions } from '../../driver/backend/ports/switch.js';
import { ErrorCode, VirtioError } from '../../driver/errors.js';
import { Burst } from '../../driver/memory/burst.js';
import type { PacketPool } from '../../driver/memory/packet-pool.js';
import {
  assertPackets,
  BUFFERS,
  HandGuest,
  HandThread,
  pattern,
  type RawRing,
  REGION_B,
} from '../support/hand-guest.js';

const test = suite('switch port');

const context = (pool: PacketPool, queuePairs = 1) => ({ pool, queuePairs, report: () => undefined });
const makePort = (pool: PacketPool, options: SwitchOptions = {}, queuePairs = 1): BackendPort =>
  createPort(context(pool, queuePairs), options);

const mac = (number: number): number[] => [0x02, 0, 0, 0, 0, number];
const packet = (from: number, to: number, seed: number, length = 100): Uint8Array => {
  const bytes = pattern(seed, length);
  bytes.set([...mac(to), ...mac(from), 0x88, 0xb5]);
  return bytes;
};

/** A guest with both rings, which sends and takes packets. */
class Station {
  readonly guest: HandGuest;
  readonly #rx: RawRing;
  readonly #tx: RawRing;

  constructor(thread: HandThread, options: SwitchOptions = {}) {
    this.guest = new HandGuest(thread, { port: (pool) => makePort(pool, options) });
    this.#rx = this.guest.start(0, 64);
    this.#tx = this.guest.start(1, 64);
    for (let id = 0; id < 64; id++) this.#rx.describe(id, BUFFERS + BigInt(id * 2048), 2048, 2);
    this.#rx.offer(...Array.from({ length: 64 }, (_, id) => id));
    this.guest.poll();
  }

  send(...packets: readonly Uint8Array[]): void {
    for (const [id, bytes] of packets.entries()) {
      const at = REGION_B + BigInt(id * 2048);
      this.guest.write(at, new Uint8Array(12));
      this.guest.write(at + 12n, bytes);
      this.#tx.describe(id, at, 12 + bytes.length, 0);
      this.#tx.offer(id);
    }
    this.guest.poll();
    assert.is(this.#tx.takeUsed().length, packets.length);
  }

  received(): Uint8Array[] {
    this.guest.poll();
    return this.#rx.takeUsed().map(({ id, length }) => {
      const bytes = this.guest.read(BUFFERS + BigInt(id * 2048) + 12n, length - 12);
      this.#rx.offer(id);
      return bytes;
    });
  }
}

test('guests that name the same switch are connected, those of another are not', () => {
  using thread = new HandThread();
  const stations = [new Station(thread), new Station(thread), new Station(thread, { name: 'other' })] as const;
  const [a, b, apart] = stations;
  const there = Array.from({ length: 20 }, (_, index) => packet(1, 2, index, 60 + 70 * index));
  a.send(...there);
  assertPackets(b.received(), there);
  const back = [packet(2, 1, 50)];
  b.send(...back);
  assertPackets(a.received(), back);
  assertPackets(apart.received(), []);
  for (const { guest } of stations) guest[Symbol.dispose]();
  assert.is(thread.pool.available, thread.pool.size);
});

test('what a switch has learned goes with its last member', () => {
  using thread = new HandThread();
  for (let round = 0; round < 2; round++) {
    const [a, b, c] = [new Station(thread), new Station(thread), new Station(thread)] as const;
    a.send(packet(1, 2, 1));
    assert.equal([b.received().length, c.received().length], [1, 1], 'nobody knows the destination');
    b.send(packet(2, 1, 2));
    a.send(packet(1, 2, 3));
    assert.equal([b.received().length, c.received().length], [1, 0]);
    for (const { guest } of [a, b, c]) guest[Symbol.dispose]();
  }
});

test('a pair that goes to another thread takes along what waits for it, in order', () => {
  using near = new HandThread();
  using far = new HandThread();
  const [sender, receiver] = [makePort(near.pool), makePort(near.pool, {}, 2)];
  const adopter = makePort(far.pool, {}, 2);
  const burst = new Burst(near.pool, 512);
  receiver.toGuest(burst, 1);
  const sent = Array.from({ length: 5 }, (_, index) => packet(1, 2, index, 60 + 400 * index));
  for (const bytes of sent) {
    burst.allocate(1);
    burst.bytes(burst.count - 1).fill(bytes);
  }
  sender.fromGuest(burst, 0);
  const state = structuredClone(receiver.releasePair!(1));
  receiver.toGuest(burst, 0);
  assert.is(burst.count, 0, 'nothing is left behind');
  // Flows that were the pair's are of those that stayed.
  for (let flow = 0; flow < 16; flow++) {
    burst.allocate(1);
    burst.bytes(flow).fill(packet(10 + flow, 2, flow));
  }
  sender.fromGuest(burst, 0);
  receiver.toGuest(burst, 0);
  assert.is(burst.count, 16);
  burst.free();
  adopter.adoptPair!(1, state);
  const found = new Burst(far.pool, 64);
  adopter.toGuest(found, 1);
  assertPackets(
    Array.from({ length: found.count }, (_, index) => found.bytes(index).copyPacket()),
    sent,
  );
  found.free();
  for (const port of [sender, receiver, adopter]) port.close();
  assert.equal([near.pool.available, far.pool.available], [near.pool.size, far.pool.size]);
});

test('a port for a VLAN that there is not is refused, and leaves no switch behind', () => {
  using thread = new HandThread();
  assert.throws(
    () => makePort(thread.pool, { vlan: 5000 }),
    (error: unknown) => error instanceof VirtioError && error.code === ErrorCode.INVALID_ARGUMENT,
  );
});

test.run();
