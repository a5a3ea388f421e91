/** A guest's device on its poll thread: rings that start, stop, break and move, memory that is swapped, ports that fail. */

import { closeSync, ftruncateSync, mkdtempSync, openSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import type { GuestRegion, RingSetup } from '../../driver/backend/device-model.js';
import { GuestDevice } from '../../driver/backend/guest-device.js';
import type { BackendPort } from '../../driver/backend/ports/backend-port.js';
import { SharedState } from '../../driver/backend/shared-state.js';
import { ErrorCode, VirtioError } from '../../driver/errors.js';
import type { Burst } from '../../driver/memory/burst.js';
import type { PacketPool } from '../../driver/memory/packet-pool.js';
import { USED_INDEX } from '../../driver/ring/split-views.js';
import { ControlAck, ControlClass, MqCommand } from '../../driver/spec/control.js';
import { Feature } from '../../driver/spec/features.js';
import { controlqIndex } from '../../driver/spec/net-config.js';
import { DescFlag } from '../../driver/spec/ring.js';
import { native } from '../../native/index.js';
import {
  assertPackets,
  BUFFERS,
  GUEST_FEATURES,
  HandGuest,
  HandThread,
  pattern,
  RawRing,
  REGION_A,
  REGION_B,
  REGIONS_END,
  RecordingPort,
  Witness,
} from '../support/hand-guest.js';

const test = suite('guest device');
const { NEXT, WRITE } = DescFlag;

function failure(work: () => unknown): VirtioError {
  try {
    work();
  } catch (error) {
    assert.instance(error, VirtioError, String(error));
    return error as VirtioError;
  }
  assert.unreachable('it must fail');
  throw new Error();
}

/** Sends a packet through a transmitq and asserts that it arrives. */
function send(guest: HandGuest, ring: RawRing, seed: number, at = REGION_B): void {
  const packet = pattern(seed, 60);
  guest.write(at, new Uint8Array(12));
  guest.write(at + 12n, packet);
  ring.describe(0, at, 72, 0);
  ring.offer(0);
  guest.poll();
  assertPackets(guest.port.received.splice(0), [packet]);
  assert.is(ring.takeUsed().length, 1);
}

/** Has the device deliver a packet into descriptor 0 of a receiveq. */
function receive(guest: HandGuest, ring: RawRing, seed: number): void {
  const packet = pattern(seed, 60);
  ring.describe(0, BUFFERS, 2048, WRITE);
  ring.offer(0);
  guest.port.queued.push(packet);
  guest.poll();
  assert.equal(ring.takeUsed(), [{ id: 0, length: 72 }]);
  assertPackets([guest.read(BUFFERS + 12n, 60)], [packet]);
}

test('abuse-B55: stop answers the next available index, exact; nothing is touched after it; start goes on there', () => {
  using thread = new HandThread();
  using guest = new HandGuest(thread);
  const ring = guest.start(1, 16, 65_530);
  for (let number = 0; number < 10; number++) send(guest, ring, number);
  assert.is(guest.device.stopRing(1), 4);
  assert.is(guest.device.stopRing(1), 4, 'asked twice, the same');
  const before = Buffer.from(guest.bytes);
  ring.offer(0, 0);
  const offered = Buffer.from(guest.bytes);
  guest.poll(1000);
  assert.is(Buffer.compare(offered, guest.bytes), 0, 'a stopped ring is not touched');
  assert.is.not(Buffer.compare(before, guest.bytes), 0);
  guest.startRaw(1, ring, 4);
  guest.poll();
  assert.is(ring.takeUsed().length, 2);
  assert.is(guest.device.stopRing(1), 6);
});

test('a pair that the port cannot take over stays where it was: nothing of it is here, and it may come again', () => {
  using thread = new HandThread();
  let refuses = true;
  const port = (): BackendPort => ({
    room: () => 0,
    fromGuest: (burst) => burst.free(),
    toGuest: () => {},
    adoptPair: () => {
      if (refuses) throw new VirtioError(ErrorCode.NO_RESOURCES, 'no buffers');
    },
    close: () => {},
  });
  using guest = new HandGuest(thread, { port });
  const state = guest.device.releasePair(0);
  const waiting = [{ bytes: pattern(1, 60), fields: [0, 0, 0, 0] }];
  const { available } = thread.pool;
  assert.is(failure(() => guest.device.adoptPair(0, { ...state, waiting })).code, ErrorCode.NO_RESOURCES);
  assert.is(thread.pool.available, available, 'its packets are the other thread’s yet');
  assert.is(failure(() => guest.device.releasePair(0)).code, ErrorCode.WRONG_STATE);
  refuses = false;
  guest.device.adoptPair(0, { ...state, waiting });
  assert.equal(guest.device.releasePair(0).waiting, waiting);
});

test('a ring that never started answers its base', () => {
  using thread = new HandThread();
  using guest = new HandGuest(thread);
  assert.is(guest.device.stopRing(0), 0);
  assert.is(failure(() => guest.device.stopRing(7)).code, ErrorCode.INVALID_ARGUMENT);
});

test('abuse-B28: a ring part that is not wholly in one region is refused, to its last byte', () => {
  using thread = new HandThread();
  using guest = new HandGuest(thread);
  const ring = new RawRing(guest.memory, 1, 16);
  const good: RingSetup = {
    size: 16,
    desc: ring.desc,
    avail: ring.avail,
    used: ring.used,
    base: 0,
    kickFd: undefined,
    callFd: undefined,
    errFd: undefined,
  };
  // The parts of a ring of 16: 256, 38 and 134 bytes.
  for (const [part, bytes] of [
    ['desc', 256],
    ['avail', 38],
    ['used', 134],
  ] as const) {
    const unit = part === 'desc' ? 16n : part === 'used' ? 4n : 2n;
    const lastFit = ((REGIONS_END - BigInt(bytes)) / unit) * unit;
    guest.device.startRing(1, { ...good, [part]: lastFit });
    for (const address of [lastFit + unit, REGIONS_END, REGION_A - unit, 0n, REGION_B - unit, 0xffff_ffff_ffff_fff0n]) {
      const error = failure(() => guest.device.startRing(1, { ...good, [part]: address }));
      assert.is(error.code, ErrorCode.INVALID_ARGUMENT, `${part} at 0x${address.toString(16)}`);
    }
  }
});

test('a ring that cannot start is stopped: neither polls nor a memory table bring it back', () => {
  using thread = new HandThread();
  using guest = new HandGuest(thread);
  const ring = guest.start(1, 16);
  send(guest, ring, 1);
  const setup = { size: 16, desc: 0n, avail: ring.avail, used: ring.used, base: 1 } as const;
  const fds = { kickFd: undefined, callFd: undefined, errFd: undefined } as const;
  failure(() => guest.device.startRing(1, { ...setup, ...fds }));
  ring.offer(0);
  guest.poll(1000);
  guest.device.setMemory(guest.regions);
  guest.poll(1000);
  assert.is(ring.takeUsed().length, 0);
});

test('row 51: sizes, indices and addresses that no ring has are refused', () => {
  using thread = new HandThread();
  using guest = new HandGuest(thread);
  const ring = new RawRing(guest.memory, 1, 16);
  const fds = { kickFd: undefined, callFd: undefined, errFd: undefined } as const;
  const good: RingSetup = { size: 16, desc: ring.desc, avail: ring.avail, used: ring.used, base: 0, ...fds };
  for (const bad of [
    { size: 0 },
    { size: 3 },
    { size: -16 },
    { size: 1.5 },
    { size: 65_536 },
    { size: Number.NaN },
    { base: -1 },
    { base: 65_536 },
    { base: 0.5 },
    { desc: good.desc + 8n },
    { avail: good.avail + 1n },
    { used: good.used + 2n },
  ]) {
    const error = failure(() => guest.device.startRing(1, { ...good, ...bad }));
    assert.is(
      error.code,
      ErrorCode.INVALID_ARGUMENT,
      JSON.stringify(bad, (_, value) => String(value)),
    );
  }
  guest.device.startRing(1, good);
});

test('a ring without features is refused', () => {
  using thread = new HandThread();
  using guest = new HandGuest(thread);
  guest.device.reset();
  guest.device.setMemory(guest.regions);
  assert.is(failure(() => guest.start(1, 16)).code, ErrorCode.WRONG_STATE);
});

test('a broken ring stays broken over a new memory table, and lives after stop and start', () => {
  using thread = new HandThread();
  using guest = new HandGuest(thread);
  const ring = guest.start(1, 16);
  ring.describe(3, BUFFERS, 100, NEXT, 3);
  ring.offer(3);
  guest.poll(1000);
  assert.is(guest.events.length, 1);
  // The guest puts right what it did: too late.
  ring.describe(3, BUFFERS, 100, 0);
  for (let swap = 0; swap < 5; swap++) {
    guest.device.setMemory(guest.regions);
    guest.poll(1000);
  }
  assert.is(ring.takeUsed().length, 0);
  assert.is(guest.events.length, 1, 'and is reported once');
  assert.is(native.drainEventFd(guest.errFd), 1n);
  assert.is(guest.device.stopRing(1), 0);
  guest.startRaw(1, ring, 0);
  guest.poll();
  assert.is(ring.takeUsed().length, 1);
  guest.port.received.length = 0;
  send(guest, ring, 5);
});

test('abuse-B37: a memory table is swapped between packets: old memory is never written again', () => {
  using thread = new HandThread();
  using guest = new HandGuest(thread);
  using other = new HandGuest(thread);
  const rx = guest.start(0, 16);
  const tx = guest.start(1, 16);
  send(guest, tx, 1);
  receive(guest, rx, 2);
  // The other guest's file has the same rings at the same places, as if the memory had moved.
  const rxThere = new RawRing(other.memory, 0, 16, 1);
  const txThere = new RawRing(other.memory, 1, 16, 1);
  guest.device.setMemory(other.regions);
  const old = Buffer.from(guest.bytes);
  const packet = pattern(3, 60);
  other.write(REGION_B, new Uint8Array(12));
  other.write(REGION_B + 12n, packet);
  txThere.describe(0, REGION_B, 72, 0);
  txThere.offer(0);
  rxThere.describe(0, BUFFERS, 2048, WRITE);
  rxThere.offer(0);
  guest.port.queued.push(packet);
  guest.poll(1000);
  assertPackets(guest.port.received.splice(0), [packet]);
  assertPackets([other.read(BUFFERS + 12n, 60)], [packet]);
  assert.is(Buffer.compare(old, guest.bytes), 0, 'the old memory is left alone');
  assert.is(guest.device.stopRing(1), 2);
});

test('abuse-B37: thousands of swaps under load lose nothing', () => {
  using thread = new HandThread();
  const { available } = thread.pool;
  {
    using guest = new HandGuest(thread);
    const rx = guest.start(0, 16);
    const tx = guest.start(1, 16);
    const swaps = process.env['VIRTIO_PMD_FULL'] === '1' ? 10_000 : 1000;
    for (let swap = 0; swap < swaps; swap++) {
      guest.device.setMemory(swap % 2 === 0 ? guest.regions : guest.regions.reverse());
      send(guest, tx, swap);
      receive(guest, rx, swap);
    }
    assert.equal(guest.events, []);
  }
  assert.is(thread.pool.available, available);
});

test('a memory table that cannot be mapped is an error, and the next one works', () => {
  using thread = new HandThread();
  using guest = new HandGuest(thread);
  const ring = guest.start(1, 16);
  send(guest, ring, 1);
  const [a, b] = guest.regions as [GuestRegion, GuestRegion];
  for (const bad of [
    [{ ...a, bytes: 1 << 30 }],
    [a, a],
    [{ ...a, guestAddress: 0xffff_ffff_ffff_f000n }],
    [{ ...a, fd: -1 }],
  ]) {
    try {
      guest.device.setMemory(bad);
      assert.unreachable();
    } catch (error) {
      assert.instance(error, Error);
    }
    guest.poll(1000);
    guest.device.setMemory([a, b]);
    send(guest, ring, 2);
  }
});

test("abuse-B38: a memory table without a running ring's memory stops that ring and says so", () => {
  using thread = new HandThread();
  using guest = new HandGuest(thread);
  const ring = guest.start(1, 16);
  send(guest, ring, 1);
  const [, b] = guest.regions as [GuestRegion, GuestRegion];
  guest.device.setMemory([b]);
  assert.equal(
    guest.events.map(({ type }) => type),
    ['ring-broken'],
  );
  guest.poll(1000);
  guest.device.setMemory(guest.regions);
  ring.offer(0);
  guest.poll(1000);
  assert.is(ring.takeUsed().length, 0, 'it stands still until it is started again');
  guest.startRaw(1, ring, guest.device.stopRing(1));
  guest.poll();
  assert.is(ring.takeUsed().length, 1);
});

test('abuse-B35: memory that is truncated under the device: memory-fault, and the other guests go on', () => {
  const folder = mkdtempSync(join(tmpdir(), 'guest-'));
  const file = openSync(join(folder, 'memory'), 'w+');
  using thread = new HandThread();
  using witness = new Witness(thread);
  try {
    using guest = new HandGuest(thread);
    const bytes = 1 << 20;
    ftruncateSync(file, bytes);
    const [a] = guest.regions as [GuestRegion, GuestRegion];
    guest.device.setMemory([a, { fd: file, fileOffset: 0, guestAddress: REGION_B, bytes }]);
    const ring = guest.start(1, 16);
    ring.describe(0, REGION_B + 0x8000n, 100, 0);
    ring.offer(0);
    guest.poll();
    assert.is(ring.takeUsed().length, 1);
    ftruncateSync(file, 4096);
    ring.offer(0);
    guest.poll(1000);
    assert.equal(
      guest.events.map(({ type }) => type),
      ['memory-fault'],
    );
    witness.forward();
    guest.poll(1000);
    assert.is(guest.events.length, 1, 'said once');
  } finally {
    closeSync(file);
    rmSync(folder, { recursive: true });
  }
  witness.forward();
});

test('a receiveq that is not enabled gets nothing, and gets it when it is', () => {
  using thread = new HandThread();
  using guest = new HandGuest(thread);
  const ring = guest.start(0, 16);
  guest.device.enableRing(0, false);
  ring.describe(0, BUFFERS, 2048, WRITE);
  ring.offer(0);
  guest.port.queued.push(pattern(1, 60));
  guest.poll(100);
  assert.is(ring.takeUsed().length, 0);
  guest.device.enableRing(0, true);
  guest.poll();
  assert.is(ring.takeUsed().length, 1);
});

test('reset: rings stopped, packets in hand freed, and all can be set up again', () => {
  using thread = new HandThread();
  const { available } = thread.pool;
  using guest = new HandGuest(thread);
  for (let round = 0; round < 3; round++) {
    const rx = guest.start(0, 16);
    const tx = guest.start(1, 16);
    send(guest, tx, round);
    receive(guest, rx, round);
    // Nowhere to put them: they wait in the device.
    guest.port.queued.push(pattern(1, 60), pattern(2, 60));
    guest.poll();
    assert.ok(thread.pool.available < available);
    guest.device.reset();
    assert.is(thread.pool.available, available);
    tx.offer(0);
    guest.poll(1000);
    assert.is(tx.takeUsed().length, 0);
    guest.device.setFeatures(GUEST_FEATURES);
    guest.device.setMemory(guest.regions);
  }
});

/** A port that does wrong what the body says. */
function wrongPort(pool: PacketPool, body: Partial<BackendPort>): BackendPort {
  return {
    room: () => 64,
    fromGuest: (burst) => burst.free(),
    toGuest: () => undefined,
    close: () => void pool,
    ...body,
  };
}

test('a port that throws costs its own guest, not the thread', () => {
  for (const body of [
    {
      fromGuest: () => {
        throw new Error('disk full');
      },
    },
    {
      toGuest: () => {
        throw new Error('disk full');
      },
    },
    {
      room: () => {
        throw new Error('disk full');
      },
    },
  ]) {
    using thread = new HandThread();
    const { available } = thread.pool;
    {
      using witness = new Witness(thread);
      using guest = new HandGuest(thread, { port: (pool) => wrongPort(pool, body) });
      guest.start(0, 16);
      const ring = guest.start(1, 16);
      ring.describe(0, BUFFERS, 72, 0);
      ring.offer(0);
      guest.poll(1000);
      assert.equal(
        guest.events.map((event) =>
          event.type === 'ring-broken' ? `${event.ring} ${/disk full/.test(event.reason)}` : event.type,
        ),
        ['0 true', '1 true'],
      );
      witness.forward();
    }
    assert.is(thread.pool.available, available, 'no buffer is lost');
  }
});

test('a port that leaves packets in the burst loses them, and no buffer', () => {
  using thread = new HandThread();
  const { available } = thread.pool;
  {
    using guest = new HandGuest(thread, {
      port: (pool) => wrongPort(pool, { fromGuest: (_burst: Burst) => undefined }),
    });
    const ring = guest.start(1, 64);
    for (let round = 0; round < 20; round++) {
      for (let id = 0; id < 40; id++) {
        ring.describe(id, BUFFERS, 72, 0);
        ring.offer(id);
      }
      guest.poll();
      assert.is(ring.takeUsed().length, 40, `round ${round}`);
    }
  }
  assert.is(thread.pool.available, available);
});

test('a port with little room holds the guest back: its packets wait in the ring', () => {
  using thread = new HandThread();
  using guest = new HandGuest(thread);
  const ring = guest.start(1, 16);
  for (let id = 0; id < 10; id++) {
    ring.describe(id, BUFFERS, 72, 0);
    ring.offer(id);
  }
  guest.port.roomLeft = 0;
  guest.poll(10);
  assert.is(ring.takeUsed().length, 0);
  guest.port.roomLeft = 3;
  guest.poll(1);
  assert.is(ring.takeUsed().length, 3);
});

/** Sends a control command with an ack byte; returns the ack and what stands in the used ring. */
function command(guest: HandGuest, ring: RawRing, bytes: readonly number[]): { ack: number; used: number } {
  guest.write(BUFFERS, bytes);
  guest.write(BUFFERS + 4096n, [0xee]);
  ring.describe(0, BUFFERS, bytes.length, NEXT, 1);
  ring.describe(1, BUFFERS + 4096n, 1, WRITE);
  ring.offer(0);
  guest.poll();
  const used = ring.takeUsed();
  assert.is(used.length, 1);
  return { ack: guest.read(BUFFERS + 4096n, 1)[0]!, used: used[0]!.length };
}

test('queue pairs stay on over a new memory table', () => {
  using thread = new HandThread();
  const features = GUEST_FEATURES.with(Feature.MQ, Feature.CTRL_VQ);
  // Every pair has one packet for the guest, again and again.
  const port = (pool: PacketPool): BackendPort =>
    wrongPort(pool, {
      toGuest: (burst) => {
        if (burst.count > 0 || burst.allocate(1) === 0) return;
        burst.bytes(burst.count - 1).fill(pattern(1, 60));
      },
    });
  using guest = new HandGuest(thread, { features, queuePairs: 2, port });
  const second = guest.start(2, 16);
  const control = guest.start(4, 16);
  const deliveries = (): number => {
    second.describe(3, REGION_B, 2048, WRITE);
    second.offer(3);
    guest.poll();
    return second.takeUsed().length;
  };
  assert.is(deliveries(), 0, 'one pair at first');
  assert.equal(command(guest, control, [ControlClass.MQ, MqCommand.VQ_PAIRS_SET, 2, 0]), {
    ack: ControlAck.OK,
    used: 1,
  });
  assert.ok(deliveries() > 0);
  guest.device.setMemory(guest.regions);
  assert.ok(deliveries() > 0, 'the pairs that the driver turned on are still on');
  assert.equal(command(guest, control, [ControlClass.MQ, MqCommand.VQ_PAIRS_SET, 1, 0]), {
    ack: ControlAck.OK,
    used: 1,
  });
  assert.is(deliveries(), 0);
});

test('what commands have set stays when another thread joins, and when one leaves', () => {
  const shared = SharedState.create(controlqIndex(2) + 1);
  const features = GUEST_FEATURES.with(Feature.GUEST_CSUM);
  using first = new HandThread();
  using guest = new HandGuest(first, { shared, features, queuePairs: 2 });
  assert.ok(shared.guestOffloads !== 0n);
  shared.guestOffloads = 0n;
  shared.activePairs = 1;
  using second = new HandThread();
  const device = new GuestDevice(second, new RecordingPort(second.pool), 2, guest.counters, () => undefined, {
    shared,
  });
  device.setFeatures(features, true);
  assert.equal([shared.guestOffloads, shared.activePairs], [0n, 1]);
  device.close();
  assert.equal([shared.guestOffloads, shared.activePairs], [0n, 1]);
});

test('the call descriptor is signalled once a burst, when the guest wants it', () => {
  using thread = new HandThread();
  using guest = new HandGuest(thread);
  const ring = guest.start(1, 16);
  send(guest, ring, 1);
  assert.is(native.drainEventFd(guest.callFd), 1n);
  ring.views.avail[0] = 1;
  send(guest, ring, 2);
  assert.is(native.drainEventFd(guest.callFd), 0n);
  const { callsSent, callsSaved } = guest.statistics(1);
  assert.equal([callsSent, callsSaved], [1, 1]);
  assert.is(ring.views.used[USED_INDEX], 2);
});

test.run();
