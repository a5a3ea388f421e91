/** Checksums and segments between guests and ports: who does the work that a packet leaves, and when that changes. */

import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { CompletedPackets } from '../../driver/backend/completed-packets.js';
import { RingCounter } from '../../driver/backend/counters.js';
import { GuestDevice } from '../../driver/backend/guest-device.js';
import { offeredFeatures } from '../../driver/backend/net-device-offer.js';
import type { BackendPort } from '../../driver/backend/ports/backend-port.js';
import { createPort as createEcho } from '../../driver/backend/ports/echo.js';
import { limitReceivedPackets, receiveFilterState } from '../../driver/backend/receive-filter.js';
import { SharedState } from '../../driver/backend/shared-state.js';
import { Burst } from '../../driver/memory/burst.js';
import { PacketField, PacketFlag } from '../../driver/memory/packet-fields.js';
import type { PacketPool } from '../../driver/memory/packet-pool.js';
import { PacketView } from '../../driver/memory/packet-view.js';
import { ALL_WORK, workFromGuest, workToGuest } from '../../driver/offload/work.js';
import { ControlClass, GuestOffloadsCommand, guestOffloadsOf } from '../../driver/spec/control.js';
import { dropUnmetRequirements, Feature, FeatureSet } from '../../driver/spec/features.js';
import { controlqIndex, transmitqIndex } from '../../driver/spec/net-config.js';
import { GsoType, NetHeaderFlag } from '../../driver/spec/net-header.js';
import { CommandedGuest, le } from '../support/commanded-guest.js';
import { HandThread } from '../support/hand-guest.js';
import { ASKING, OffloadGuest, RING_SIZE, TAKING } from '../support/offload-guest.js';
import { type PacketShape, packetOf, place, placesOf, transportChecksum } from '../support/offload-packets.js';

const test = suite('back-end: offloads');

const { NEEDS_CHECKSUM, SEGMENT_TCP4, SEGMENT_TCP6, SEGMENT_UDP, CHECKSUM_VALID } = PacketFlag;
const { NEEDS_CSUM, DATA_VALID } = NetHeaderFlag;
const SHAPE: PacketShape = {
  version: 4,
  protocol: 'tcp',
  payload: Uint8Array.from({ length: 5000 }, (_, at) => at & 0xff),
};
const { transport, payload } = placesOf(SHAPE);
const ASKS = { flags: NEEDS_CSUM, csum_start: transport, csum_offset: 16, gso_type: GsoType.TCPV4, gso_size: 1000 };
const report = (reason: string): void => assert.unreachable(reason);

function unfinished(shape: PacketShape): Uint8Array {
  const bytes = packetOf(shape);
  const sum = transportChecksum(bytes, shape, true);
  bytes.set([sum >>> 8, sum & 0xff], placesOf(shape).transport + 16);
  return bytes;
}

/** A port that sends what a test gives it, with flags, and keeps what comes. */
class WorkPort implements BackendPort {
  readonly received: { readonly bytes: Uint8Array; readonly flags: number }[] = [];
  readonly told: number[] = [];
  readonly queued: number[] = [];
  readonly takesWork: number | undefined;
  roomLeft = 64;
  readonly #pool: PacketPool;

  constructor(pool: PacketPool, takesWork?: number) {
    this.#pool = pool;
    this.takesWork = takesWork;
  }
  guestTakes(work: number): void {
    this.told.push(work);
  }
  room(): number {
    return this.roomLeft;
  }
  fromGuest(burst: Parameters<BackendPort['fromGuest']>[0]): void {
    assert.ok(burst.count <= this.roomLeft, 'no more than there is room for');
    const view = new PacketView(this.#pool);
    for (const handle of burst.handles.subarray(0, burst.count)) {
      const flags = this.#pool.fields[handle * PacketField.WORDS + PacketField.FLAGS]!;
      this.received.push({ flags, bytes: view.move(handle).copyPacket() });
    }
    burst.free();
  }
  /** Has a packet wait for the guest. */
  send(bytes: Uint8Array, flags: number, checksum = transport | (16 << 16)): void {
    const handle = place(this.#pool, bytes);
    this.#pool.fields[handle * PacketField.WORDS + PacketField.FLAGS] = flags;
    this.#pool.fields[handle * PacketField.WORDS + PacketField.CHECKSUM] = checksum;
    this.queued.push(handle);
  }
  toGuest(burst: Parameters<BackendPort['toGuest']>[0]): void {
    while (burst.count < burst.capacity && this.queued.length > 0) burst.handles[burst.count++] = this.queued.shift()!;
  }
  close(): void {}
}

test('virtio 1.2 §5.1.3.1: what is offered needs nothing that is not, with and without each bit of it', () => {
  const all = offeredFeatures({ queuePairs: 2 });
  for (const feature of [
    Feature.CSUM,
    Feature.HOST_TSO4,
    Feature.HOST_TSO6,
    Feature.HOST_ECN,
    Feature.HOST_USO,
    Feature.HOST_UFO,
  ])
    assert.ok(all.has(feature), `${FeatureSet.of(feature)}`);
  for (const feature of [
    Feature.GUEST_CSUM,
    Feature.GUEST_TSO4,
    Feature.GUEST_TSO6,
    Feature.GUEST_ECN,
    Feature.GUEST_UFO,
  ])
    assert.ok(all.has(feature), `${FeatureSet.of(feature)}`);
  assert.is(dropUnmetRequirements(all).dropped.size, 0);
  for (const without of [Feature.CSUM, Feature.GUEST_CSUM])
    assert.is(
      dropUnmetRequirements(offeredFeatures({ without: [without] })).dropped.size,
      0,
      `${FeatureSet.of(without)}`,
    );
});

test('work by features and by offloads: nothing without checksums', () => {
  assert.is(workFromGuest(ASKING) & SEGMENT_TCP6, SEGMENT_TCP6);
  assert.is(workFromGuest(ASKING.without(Feature.CSUM)), 0);
  assert.is(workFromGuest(FeatureSet.of(Feature.CSUM)), NEEDS_CHECKSUM);
  const taking = guestOffloadsOf(TAKING);
  assert.is(workToGuest(taking) & SEGMENT_UDP, SEGMENT_UDP);
  assert.is(workToGuest(taking & ~(1n << BigInt(Feature.GUEST_USO6))) & SEGMENT_UDP, 0, 'both or none');
  assert.is(workToGuest(taking & ~(1n << BigInt(Feature.GUEST_CSUM))), 0);
});

test('a port that knows of no flags gets packets as they go over a wire, no more than it has room for', () => {
  using thread = new HandThread();
  let port: WorkPort | undefined;
  {
    using guest = new OffloadGuest(thread, ASKING, (pool) => {
      port = new WorkPort(pool);
      return port;
    });
    port!.roomLeft = 2;
    guest.send(unfinished(SHAPE), ASKS);
    // What is behind waits in the ring as long.
    guest.hand.poll(2);
    guest.send(packetOf(SHAPE).slice(0, 60));
    assert.is(port!.received.length, 6);
    for (const { bytes, flags } of port!.received.slice(0, 5)) {
      assert.is(flags, 0);
      assert.is((bytes[transport + 16]! << 8) | bytes[transport + 17]!, transportChecksum(bytes, SHAPE));
    }
    const joined = Buffer.concat(port!.received.slice(0, 5).map(({ bytes }) => bytes.subarray(payload)));
    assert.equal(Uint8Array.from(joined), SHAPE.payload);
    assert.is(port!.received[5]!.bytes.length, 60);
  }
  assert.is(thread.pool.available, thread.pool.size);
});

test('a port that does a part of the work gets that part, and the host does the rest', () => {
  using thread = new HandThread();
  let port: WorkPort | undefined;
  {
    using guest = new OffloadGuest(thread, ASKING, (pool) => {
      port = new WorkPort(pool, ALL_WORK & ~SEGMENT_UDP);
      return port;
    });
    guest.send(unfinished(SHAPE), ASKS);
    const udp: PacketShape = { ...SHAPE, protocol: 'udp' };
    guest.send(packetOf(udp), { ...ASKS, csum_offset: 6, gso_type: GsoType.UDP_L4 });
    guest.hand.poll(2);
    const flags = port!.received.map((packet) => packet.flags);
    assert.equal(flags, [(NEEDS_CHECKSUM | SEGMENT_TCP4 | (1000 << 16)) >>> 0, 0, 0, 0, 0, 0]);
  }
  assert.is(thread.pool.available, thread.pool.size);
});

test('a port may leave work to any guest, and hears what the guest does', () => {
  for (const features of [TAKING, TAKING.without(Feature.GUEST_TSO4), ASKING]) {
    using thread = new HandThread();
    let port: WorkPort | undefined;
    {
      using guest = new OffloadGuest(thread, features, (pool) => {
        port = new WorkPort(pool);
        return port;
      });
      port!.send(unfinished(SHAPE), NEEDS_CHECKSUM | SEGMENT_TCP4 | (1000 << 16));
      const arrived = guest.receive();
      assert.equal(port!.told, [workToGuest(guestOffloadsOf(features))]);
      const isWhole = features.has(Feature.GUEST_TSO4);
      assert.is(arrived.length, isWhole ? 1 : 5);
      assert.is(arrived[0]!.header.gso_type, isWhole ? GsoType.TCPV4 : GsoType.NONE);
    }
    assert.is(thread.pool.available, thread.pool.size);
  }
});

test('virtio 1.2 §5.1.6.4.1: DATA_VALID where checksums were found right, and only with GUEST_CSUM', () => {
  for (const features of [TAKING, ASKING]) {
    using thread = new HandThread();
    let port: WorkPort | undefined;
    using guest = new OffloadGuest(thread, features, (pool) => {
      port = new WorkPort(pool);
      return port;
    });
    port!.send(packetOf(SHAPE).slice(0, 100), CHECKSUM_VALID);
    assert.is(guest.receive()[0]!.header.flags, features === TAKING ? DATA_VALID : 0);
  }
});

test('virtio 1.2 §5.1.6.5.8: an offload that is turned off is done here from the next packet on, until it is on again', () => {
  let port: WorkPort | undefined;
  using guest = new CommandedGuest(TAKING.with(Feature.CTRL_VQ, Feature.CTRL_GUEST_OFFLOADS), 1, (pool) => {
    port = new WorkPort(pool);
    return port;
  });
  const all = guestOffloadsOf(TAKING);
  const set = (offloads: bigint): Uint8Array =>
    guest.set([ControlClass.GUEST_OFFLOADS, GuestOffloadsCommand.SET, ...le(8, offloads)]);
  const send = (): number[] => {
    port!.send(unfinished(SHAPE), NEEDS_CHECKSUM | SEGMENT_TCP4 | (1000 << 16));
    guest.hand.poll(4);
    return guest.arrivedIn(0).map(({ header }) => header[0]! | (header[1]! << 8));
  };
  // Three buffers of 2048 bytes: the header is in the first of them.
  const whole = (): number => send()[0]!;
  assert.is(whole(), NEEDS_CSUM | (GsoType.TCPV4 << 8));
  set(all & ~(1n << BigInt(Feature.GUEST_TSO4)));
  assert.equal(send(), [0, 0, 0, 0, 0]);
  set(0n);
  assert.equal(send(), [0, 0, 0, 0, 0]);
  set(all);
  assert.is(whole(), NEEDS_CSUM | (GsoType.TCPV4 << 8));
  assert.equal(port!.told.length, 4);
  assert.is(controlqIndex(1), 2);
});

test('virtio 1.2 §5.1.4.1: segments that are cut here are no longer than the MTU either', () => {
  using thread = new HandThread();
  const state = receiveFilterState(new Uint8Array(6));
  limitReceivedPackets(state, 1000);
  const port = new WorkPort(thread.pool);
  using guest = new OffloadGuest(thread, ASKING, () => port, { filter: state });
  for (const size of [960, 961]) port.send(unfinished(SHAPE), NEEDS_CHECKSUM | SEGMENT_TCP4 | (size << 16));
  const arrived = guest.receive();
  // 20 bytes of IPv4 and 20 of TCP; of what is cut at 961, the last one alone is short enough.
  assert.equal(
    arrived.map(({ bytes }) => bytes.length - payload),
    [960, 960, 960, 960, 960, 200, 195],
  );
  assert.is(guest.hand.statistics(0).drops.aboveMtu, 5);
});

test('a pair that goes to another thread takes along what was completed for it', () => {
  using thread = new HandThread();
  const port = new WorkPort(thread.pool);
  {
    using guest = new OffloadGuest(thread, ASKING, () => port);
    guest.takeBuffers();
    guest.giveBuffers(10);
    port.send(unfinished(SHAPE), NEEDS_CHECKSUM | SEGMENT_TCP4 | (100 << 16));
    port.send(unfinished(SHAPE), NEEDS_CHECKSUM | SEGMENT_TCP4 | (500 << 16));
    port.send(packetOf(SHAPE).slice(0, 60), 0);
    guest.hand.poll(1);
    assert.not(guest.hand.device.poll(), 'the guest has no more buffers');
    const state = guest.hand.device.releasePair(0);
    assert.equal([state.completed.length, state.waiting.length], [51, 0]);
    assert.is(thread.pool.available, thread.pool.size, 'nothing of it is here');
    guest.hand.device.adoptPair(0, state);
    const arrived = guest.receive(1);
    guest.giveBuffers(RING_SIZE - 10);
    arrived.push(...guest.receive());
    assert.is(arrived.length, 61);
    const segments = arrived.slice(0, 60).map(({ bytes }) => bytes.subarray(payload));
    assert.equal(Uint8Array.from(Buffer.concat(segments)), Uint8Array.from([...SHAPE.payload, ...SHAPE.payload]));
  }
  assert.is(thread.pool.available, thread.pool.size);
});

test('a pair that goes to another thread takes along what its guest sent; segments that do not are lost for the transmitq', () => {
  using thread = new HandThread();
  {
    using guest = new OffloadGuest(thread, ASKING);
    const { device, port } = guest.hand;
    port.roomLeft = 2;
    guest.offer(unfinished(SHAPE), ASKS, 2);
    guest.hand.poll(1);
    device.adoptPair(0, device.releasePair(0));
    const lost = [0, transmitqIndex(0)].map((ring) => guest.hand.statistics(ring).drops.notTaken);
    assert.equal(lost, [0, 3]);
    guest.hand.poll(4);
    assert.is(port.received.length, 2 + 5);
  }
  assert.is(thread.pool.available, thread.pool.size);
});

/** Tells what the guest does so many times more; from then on the guest does nothing. */
class FadingState extends SharedState {
  looks = Number.POSITIVE_INFINITY;
  override get guestWork(): number {
    return this.looks-- > 0 ? super.guestWork : 0;
  }
}

test('virtio 1.2 §5.1.6.5.8: whenever an offload is turned off, on another thread, header and checksum agree', () => {
  for (let looks = 0; looks < 8; looks++) {
    using thread = new HandThread();
    const port = new WorkPort(thread.pool);
    const shared = new FadingState(SharedState.create(3).memory);
    shared.activePairs = 1;
    {
      using guest = new OffloadGuest(thread, TAKING, () => port, { shared });
      guest.hand.poll(1);
      port.send(unfinished(SHAPE), NEEDS_CHECKSUM);
      shared.looks = looks;
      const [arrival] = guest.receive();
      const { bytes, header } = arrival!;
      const checksum = (bytes[transport + 16]! << 8) | bytes[transport + 17]!;
      assert.is(checksum === transportChecksum(bytes, SHAPE), header.flags === 0, `off after ${looks} looks`);
      assert.is(guest.hand.statistics(0).drops.offload, 0, `off after ${looks} looks`);
    }
    assert.is(thread.pool.available, thread.pool.size);
  }
});

test('a packet is in one burst, whatever is thrown on its way', () => {
  using thread = new HandThread();
  const { pool } = thread;
  const counters = new Proxy(new Float64Array(RingCounter.COUNT), {
    set: () => {
      throw new Error('a counter that cannot be written');
    },
  });
  const completed = new CompletedPackets(pool, 64, counters);
  const from = new Burst(pool, 64);
  for (const checksum of [transport | (16 << 16), 0xffff]) {
    const handle = place(pool, packetOf(SHAPE).slice(0, 60));
    pool.fields[handle * PacketField.WORDS + PacketField.FLAGS] = NEEDS_CHECKSUM;
    pool.fields[handle * PacketField.WORDS + PacketField.CHECKSUM] = checksum;
    from.handles[from.count++] = handle;
  }
  assert.throws(() => completed.takeFrom(from, ALL_WORK, 64), 'a counter');
  assert.equal([completed.burst.count, from.count], [1, 1]);
  assert.is.not(completed.burst.handles[0], from.handles[0]);
  completed.free();
  from.free();
  assert.is(pool.available, pool.size);
});

test('looks for buffers are counted for segments that wait as for packets', () => {
  using thread = new HandThread();
  const port = new WorkPort(thread.pool);
  using guest = new OffloadGuest(thread, ASKING, () => port);
  guest.takeBuffers();
  guest.giveBuffers(2);
  port.send(unfinished(SHAPE), NEEDS_CHECKSUM | SEGMENT_TCP4 | (1000 << 16));
  guest.hand.poll(1);
  const counted = (): number[] => [guest.hand.statistics(0).polls, guest.hand.statistics(0).emptyPolls];
  assert.equal(counted(), [1, 0]);
  guest.hand.poll(3);
  assert.equal(counted(), [4, 3]);
  guest.giveBuffers(RING_SIZE - 2);
  guest.hand.poll(1);
  assert.equal(counted(), [5, 3]);
});

test('echo turns a packet round with what it asks for', () => {
  using thread = new HandThread();
  using guest = new OffloadGuest(thread, ASKING.union(TAKING), (pool) =>
    createEcho({ pool, queuePairs: 1, report }, { mode: 'macswap' }),
  );
  guest.send(unfinished(SHAPE), ASKS);
  const [echoed] = guest.receive();
  const { flags, gso_type, gso_size, csum_start, csum_offset } = echoed!.header;
  assert.equal({ flags, gso_type, gso_size, csum_start, csum_offset }, ASKS);
  assert.equal(echoed!.bytes.slice(12), unfinished(SHAPE).slice(12));
  assert.is(guest.hand.statistics(transmitqIndex(0)).drops.offload, 0);
});

test('without buffers for segments a packet is lost, and counted', () => {
  using thread = new HandThread(96);
  const port = new WorkPort(thread.pool);
  {
    using guest = new OffloadGuest(thread, ASKING, () => port);
    port.send(unfinished(SHAPE), NEEDS_CHECKSUM | SEGMENT_TCP4 | (20 << 16));
    port.send(packetOf(SHAPE).slice(0, 60), 0);
    assert.is(guest.receive().length, 1);
    assert.is(guest.hand.statistics(0).drops.notTaken, 1);
  }
  assert.is(thread.pool.available, thread.pool.size);
});

test('a guest without features leaves no work, and none is left to it', () => {
  using thread = new HandThread();
  const port = new WorkPort(thread.pool);
  using guest = new OffloadGuest(thread, FeatureSet.of(Feature.VERSION_1), () => port);
  guest.hand.poll();
  assert.equal(port.told, [0]);
  assert.instance(guest.hand.device, GuestDevice);
});

test.run();
