/** What the device owes the specification as a network device (spec-E2, E13 to E16, E18). */

import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { DeviceThread } from '../../driver/backend/device-thread.js';
import { NetDevice } from '../../driver/backend/net-device.js';
import { offeredFeatures } from '../../driver/backend/net-device-offer.js';
import { echoPort } from '../../driver/backend/ports/built-in.js';
import { createPort } from '../../driver/backend/ports/echo.js';
import { ErrorCode, VirtioError } from '../../driver/errors.js';
import { ControlClass, MqCommand } from '../../driver/spec/control.js';
import { dropUnmetRequirements, Feature, FeatureSet } from '../../driver/spec/features.js';
import { QUEUE_PAIRS_MAX, QUEUE_PAIRS_MIN, virtioNetConfig } from '../../driver/spec/net-config.js';
import { GsoType, NetHeaderFlag } from '../../driver/spec/net-header.js';
import { DescFlag } from '../../driver/spec/ring.js';
import { CommandedGuest, le } from '../support/commanded-guest.js';
import {
  assertPackets,
  BUFFERS,
  HandGuest,
  HandThread,
  pattern,
  type RawRing,
  REGION_B,
} from '../support/hand-guest.js';
import { RawPackedRing } from '../support/hand-packed-ring.js';
import { randomNumbers } from '../support/memory-threads.js';
import { checkReceivedPacket } from '../support/spec/header-rules.js';
import { Violations } from '../support/spec/violations.js';

const test = suite('network device');
const HEADER_BYTES = 12;
const formats = ['split', 'packed'] as const;
const offloads = [
  ...[Feature.CSUM, Feature.HOST_TSO4, Feature.HOST_TSO6, Feature.HOST_ECN, Feature.HOST_USO],
  ...[Feature.GUEST_CSUM, Feature.GUEST_TSO4, Feature.GUEST_TSO6],
];

test('spec-E2: whatever a device is made for, what it offers is consistent, and VERSION_1 is in it', () => {
  for (const queuePairs of [1, 2, 127, 128]) {
    for (const mtu of [undefined, 1500]) {
      for (const iommu of [false, true]) {
        for (const threads of [1, 2]) {
          const offered = offeredFeatures({ queuePairs, mtu, iommu }, threads);
          const what = `${JSON.stringify({ queuePairs, mtu, iommu, threads })}: ${offered}`;
          assert.ok(offered.has(Feature.VERSION_1), what);
          assert.ok(dropUnmetRequirements(offered).features.equals(offered), what);
        }
      }
    }
  }
});

/** A guest made by hand whose packets come back, on rings of either format. */
class EchoGuest implements Disposable {
  readonly #thread = new HandThread();
  readonly hand: HandGuest;
  readonly #isPacked: boolean;
  readonly #rx: RawRing | RawPackedRing;
  readonly #tx: RawRing | RawPackedRing;
  #number = 0;

  constructor(format: 'split' | 'packed', features: FeatureSet) {
    this.#isPacked = format === 'packed';
    this.hand = new HandGuest(this.#thread, {
      features: this.#isPacked ? features.with(Feature.RING_PACKED) : features,
      port: (pool) => createPort({ pool, queuePairs: 1, report: () => {} }, {}),
    });
    const start = (ring: number) => (this.#isPacked ? this.hand.startPacked(ring, 16) : this.hand.start(ring, 16));
    this.#rx = start(0);
    this.#tx = start(1);
  }

  /** Sends a packet, header included; returns what came back of it, header included, or undefined where it was dropped. */
  exchange(packet: Uint8Array): Uint8Array | undefined {
    const id = this.#number++ % 16;
    this.hand.write(REGION_B, packet);
    this.#offer(this.#tx, id, REGION_B, packet.length, 0);
    this.#offer(this.#rx, id, BUFFERS, 4096, DescFlag.WRITE);
    this.hand.poll();
    assert.is(this.#tx.takeUsed().length, 1, 'the chain is used, whatever is in it');
    const [used] = this.#rx.takeUsed();
    if (used !== undefined) return this.hand.read(BUFFERS, used.length);
    // The buffer is still out: a plain packet fetches it.
    this.hand.write(REGION_B, new Uint8Array(HEADER_BYTES + 60));
    this.#offer(this.#tx, (id + 1) % 16, REGION_B, HEADER_BYTES + 60, 0);
    this.#number++;
    this.hand.poll();
    assert.is(this.#rx.takeUsed().length, 1, 'and the ring goes on');
    this.#tx.takeUsed();
    return undefined;
  }

  #offer(ring: RawRing | RawPackedRing, id: number, address: bigint, length: number, flags: number): void {
    if (ring instanceof RawPackedRing) ring.offer(id, { address, length, flags });
    else {
      ring.describe(id, address, length, flags);
      ring.offer(id);
    }
  }

  [Symbol.dispose](): void {
    this.hand[Symbol.dispose]();
    assert.is(this.#thread.pool.available, this.#thread.pool.size, 'every buffer of the host is back');
    this.#thread[Symbol.dispose]();
  }
}

for (const format of formats) {
  test(`spec-E13, spec-E14: a header of a sender without offloads is not acted on, and says nothing to the receiver (${format})`, () => {
    const random = randomNumbers(14);
    const features = FeatureSet.of(Feature.VERSION_1, Feature.MRG_RXBUF);
    using guest = new EchoGuest(format, features);
    const violations = new Violations();
    for (let round = 0; round < 300; round++) {
      const packet = pattern(round, 14 + random(300));
      const header = Uint8Array.from({ length: HEADER_BYTES }, () => random(256));
      const back = guest.exchange(Uint8Array.from([...header, ...packet])) ?? new Uint8Array(HEADER_BYTES);
      assertPackets([back.subarray(HEADER_BYTES)], [packet]);
      checkReceivedPacket(back, features, undefined, violations);
    }
    assert.equal(violations.lines, []);
    assert.equal(guest.hand.events, []);
  });

  test(`spec-E13, spec-E14: places of checksums and lengths of headers behind the end harm nobody (${format})`, () => {
    const random = randomNumbers(15);
    // As many of these as the device has: with none of them every packet is a plain one.
    const accepted = offeredFeatures({}).intersection(FeatureSet.of(...offloads));
    const features = accepted.with(Feature.VERSION_1, Feature.MRG_RXBUF);
    using guest = new EchoGuest(format, features);
    const violations = new Violations();
    const kinds = [GsoType.NONE, GsoType.TCPV4, GsoType.UDP, GsoType.TCPV6, GsoType.UDP_L4, 0x81, 0x7f];
    for (let round = 0; round < 500; round++) {
      const packet = pattern(round, 14 + random(200));
      const half = (): number[] => {
        const value = random(3) === 0 ? random(0x10000) : random(packet.length + 4);
        return [value & 0xff, value >>> 8];
      };
      const flags = random(2) === 0 ? NetHeaderFlag.NEEDS_CSUM : random(8);
      const header = [flags, kinds[random(kinds.length)]!, ...half(), ...half(), ...half(), ...half(), 0, 0];
      const back = guest.exchange(Uint8Array.from([...header, ...packet]));
      if (back !== undefined) checkReceivedPacket(back, features, undefined, violations);
    }
    assert.equal(violations.lines, []);
    assert.equal(guest.hand.events, []);
    guest.hand.checkCanaries();
  });
}

test('spec-E18: packets in the pairs that were turned on, from the moment the command was used', () => {
  using guest = new CommandedGuest();
  // More than the queues in front of the last one take in a turn.
  const packets = Array.from({ length: 200 }, (_, number) => pattern(number, 60));
  for (const pairs of [undefined, 2, 3, 1]) {
    if (pairs !== undefined) guest.set([ControlClass.MQ, MqCommand.VQ_PAIRS_SET, ...le(2, pairs)]);
    const came = guest.receive(packets).map((queue) => queue.length);
    for (let turn = 0; turn < 20; turn++) {
      for (const [pair, queue] of guest.receive([]).entries()) came[pair]! += queue.length;
    }
    assert.is(came[0]! + came[1]! + came[2]!, packets.length);
    assert.equal(came.slice(pairs ?? 1), new Array(3 - (pairs ?? 1)).fill(0), `with ${pairs ?? 'no'} pairs turned on`);
  }
});

const isRefusal = (error: unknown): boolean =>
  error instanceof VirtioError && error.code === ErrorCode.INVALID_ARGUMENT;

test('spec-E15: an MTU is 68 to 65535, and stands in the configuration as long as the device', async () => {
  await using thread = await DeviceThread.start({ poolSize: 256 });
  for (const mtu of [-1, 0, 67, 65_536, 1500.5]) {
    assert.throws(() => new NetDevice(thread, { port: echoPort(), mtu }), isRefusal, `${mtu}`);
  }
  for (const mtu of [68, 1500, 65_535]) {
    await using device = new NetDevice(thread, { port: echoPort(), mtu });
    const read = () => virtioNetConfig.read(new DataView(device.config.buffer)).mtu;
    assert.is(read(), mtu);
    await device.setFeatures(FeatureSet.of(Feature.VERSION_1, Feature.MTU));
    await device.reset();
    assert.is(read(), mtu, 'after a reset, too');
  }
});

test('spec-E16: max_virtqueue_pairs is what the device has, 1 to 0x8000', async () => {
  await using thread = await DeviceThread.start({ poolSize: 256 });
  for (const queuePairs of [0, 129, QUEUE_PAIRS_MAX + 1]) {
    assert.throws(() => new NetDevice(thread, { port: echoPort(), queuePairs }), isRefusal, `${queuePairs}`);
  }
  for (const queuePairs of [1, 2, 128]) {
    await using device = new NetDevice(thread, { port: echoPort(), queuePairs });
    const { max_virtqueue_pairs: pairs } = virtioNetConfig.read(new DataView(device.config.buffer));
    assert.is(pairs, queuePairs);
    assert.ok(pairs >= QUEUE_PAIRS_MIN && pairs <= QUEUE_PAIRS_MAX);
  }
});

test.run();
