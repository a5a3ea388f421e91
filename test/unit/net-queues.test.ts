/** Receive and transmit queue alone: refill, drops, order, notifications, headers, what is given back. */

import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { Burst } from '../../driver/memory/burst.js';
import { DmaMemory } from '../../driver/memory/dma-memory.js';
import { PacketField } from '../../driver/memory/packet-fields.js';
import { PacketPool } from '../../driver/memory/packet-pool.js';
import { openRing, placeRing, type QueueHandle, ringBytes, ringViews } from '../../driver/net/queue-handle.js';
import { RxQueue } from '../../driver/net/rx-queue.js';
import { QueueCounters } from '../../driver/net/statistics.js';
import { TxQueue } from '../../driver/net/tx-queue.js';
import { DESC_WORDS, USED_FLAGS } from '../../driver/ring/split-views.js';
import { UsedFlag } from '../../driver/spec/ring.js';
import { GiB, KiB } from '../../driver/units.js';
import { native } from '../../native/index.js';
import { HandDevice, HandRing } from '../support/hand-device.js';
import type { HandDeviceOptions } from '../support/hand-queues.js';
import { PackedHandDevice } from '../support/packed-hand-device.js';

const test = suite('queues of a port');

/** Uses the oldest `count` buffers of the receive ring, a packet of `length` bytes with its header in each. */
function deliver(device: HandDevice, count: number, length = 72): number {
  const ids = device.rxRing.take(count);
  for (const id of ids) {
    device.rxRing.fill(id, 1);
    device.rxRing.use(id, length);
  }
  device.rxRing.publish();
  return ids.length;
}

function packets(device: HandDevice, lengths: readonly number[]): Burst {
  const burst = new Burst(device.pool, 64);
  assert.is(burst.allocate(lengths.length), lengths.length);
  for (const [index, length] of lengths.entries()) burst.bytes(index).setLength(length);
  return burst;
}

test('a receive queue posts what the ring holds at once, and fills it up again in steps', () => {
  using device = new HandDevice({ size: 64 });
  assert.is(device.rxRing.take().length, 64);
  assert.is(device.pool.available, device.pool.size - 64);
});

for (const eventIndex of [false, true]) {
  test(`a ring that stands still has nothing to wake for: whoever waits for it sleeps (EVENT_IDX ${eventIndex})`, () => {
    const interruptFd = native.createEventFd(0);
    try {
      using device = new HandDevice({ size: 64, eventIndex, interruptFd });
      const burst = new Burst(device.pool, 64);
      assert.is(device.rx.armInterrupt(), true);
      deliver(device, 1);
      assert.is(device.rx.armInterrupt(), false, 'a packet waits');
      device.rxRing.use(9999, 72);
      device.rxRing.publish();
      for (let poll = 0; poll < 4; poll++) {
        device.rx.receive(burst);
        burst.free();
      }
      assert.ok(device.rx.broken !== undefined);
      assert.is(device.rx.armInterrupt(), true);
      device.rx.disarmInterrupt();
    } finally {
      native.closeFd(interruptFd);
    }
  });
}

test('a pool with less than the ring wants: some buffers are better than none', () => {
  using device = new HandDevice({ size: 64, poolSize: 80 });
  const burst = new Burst(device.pool, 64);
  assert.is(deliver(device, 64), 64);
  assert.is(device.rx.receive(burst), 64);
  // The application keeps 60, so that 20 are left for 64 descriptors.
  const kept = burst.handles.slice(0, 60);
  burst.removeFirst(60);
  burst.free();
  for (let poll = 0; poll < 3; poll++) device.rx.receive(burst);
  assert.is(device.rxRing.take().length, 16);
  assert.ok(device.received.noBuffer > 0);
  device.pool.free(kept, 0, 60);
  device.rx.receive(burst);
  device.rx.receive(burst);
  assert.is(device.rxRing.take().length, 48);
});

test('an empty pool leaves the ring empty; it is filled when there are buffers again, though nothing is received', () => {
  using device = new HandDevice({ size: 16, poolSize: 16 });
  const burst = new Burst(device.pool, 64);
  assert.is(deliver(device, 16), 16);
  assert.is(device.rx.receive(burst), 16);
  assert.is(device.rxRing.take().length, 0);
  const { noBuffer } = device.received;
  assert.ok(noBuffer > 0);
  burst.free();
  assert.is(device.rx.receive(burst), 0);
  assert.is(device.rxRing.take().length, 16);
});

test('a ring of one, of two', () => {
  for (const size of [1, 2]) {
    using device = new HandDevice({ size, poolSize: 16 });
    const burst = new Burst(device.pool, 8);
    for (let round = 0; round < 20; round++) {
      assert.is(deliver(device, size), size);
      assert.is(device.rx.receive(burst), size);
      burst.free();
      const out = packets(device, new Array(size).fill(60));
      assert.is(device.tx.send(out), size);
      for (const id of device.txRing.take()) device.txRing.use(id, 0);
      device.txRing.publish();
    }
  }
});

test('what does not fit the ring stays in the burst, in order, at its front', () => {
  using device = new HandDevice({ size: 8 });
  const burst = packets(device, [60, 61, 62, 63, 64, 65, 66, 67, 68, 69]);
  const handles = [...burst.handles.subarray(0, 10)];
  assert.is(device.tx.send(burst), 8);
  assert.is(burst.count, 2);
  assert.equal([...burst.handles.subarray(0, 2)], handles.slice(8));
  assert.is(device.sent.ringFull, 2);
  assert.is(device.tx.send(burst), 0);
  assert.is(device.sent.packets, 8);
  assert.is(device.sent.bytes, 60 + 61 + 62 + 63 + 64 + 65 + 66 + 67);
  assert.equal([device.tx.inFlight, device.tx.room], [8, 0]);
  for (const id of device.txRing.take(3)) device.txRing.use(id, 0);
  device.txRing.publish();
  assert.is(device.tx.send(burst), 2);
  assert.equal(
    device.txRing.take().map((id) => device.txRing.buffer(id).length),
    [63, 64, 65, 66, 67, 68, 69].map((length) => length + 12),
  );
});

test('packets that can never be sent are dropped, freed and counted by reason; the others go, in order', () => {
  using device = new HandDevice({ size: 8, maxFrameBytes: 100 });
  const burst = packets(device, [101, 60, 61, 62, 63, 100]);
  const { fields } = device.pool;
  const field = (index: number): number => burst.handles[index]! * PacketField.WORDS;
  fields[field(2) + PacketField.DATA_OFFSET] = 11;
  // A chain of ten on a ring of eight.
  const chain = new Uint32Array(9);
  assert.ok(device.pool.allocate(chain, 0, 9));
  let last = field(4);
  for (const handle of chain) {
    fields[last + PacketField.NEXT] = handle + 1;
    last = handle * PacketField.WORDS;
  }
  const { available } = device.pool;
  assert.is(device.tx.send(burst), 3);
  assert.is(burst.count, 0);
  assert.is(device.pool.available, available + 2 + 10);
  const { drops, packets: sent, bytes } = device.sent;
  assert.equal([drops.tooLong, drops.noHeadroom, sent, bytes], [2, 1, 3, 60 + 62 + 100]);
  assert.equal(
    device.txRing.take().map((id) => device.txRing.buffer(id).length - 12),
    [60, 62, 100],
  );
});

test('a burst of nothing but packets that cannot be sent', () => {
  using device = new HandDevice({ size: 8, maxFrameBytes: 100 });
  const { available } = device.pool;
  const burst = packets(device, [101, 102, 103]);
  assert.is(device.tx.send(burst), 0);
  assert.is(burst.count, 0);
  assert.is(device.sent.drops.tooLong, 3);
  assert.is(device.pool.available, available);
});

test('packets of several segments are given back whole, with and without tables', () => {
  for (const indirect of [false, true]) {
    using device = new HandDevice({ size: 8, indirect });
    const { available, fields } = device.pool;
    for (let round = 0; round < 30; round++) {
      const burst = packets(device, [60, 30]);
      const [first, second] = burst.handles as unknown as [number, number];
      fields[first * PacketField.WORDS + PacketField.NEXT] = second + 1;
      fields[first * PacketField.WORDS + PacketField.PACKET_LENGTH] = 90;
      burst.count = 1;
      assert.is(device.tx.send(burst), 1);
      assert.is(device.tx.inFlight, 1);
      for (const id of device.txRing.take()) device.txRing.use(id, 0);
      device.txRing.publish();
      assert.is(device.tx.reclaim(), 1);
      assert.is(device.pool.available, available);
    }
    assert.is(device.sent.bytes, 30 * 90);
  }
});

const FORMATS = [
  ['split', false],
  ['split', true],
  ['packed', false],
  ['packed', true],
] as const;

for (const [format, inOrder] of FORMATS) {
  test(`sent packets come back to a pool whose cache is full, each once, without flags (${format}, IN_ORDER ${inOrder})`, () => {
    const size = 1024;
    using device = openHandDevice(format, { size, inOrder });
    const { pool, tx } = device;
    const before = pool.available;
    const burst = new Burst(pool, 64);
    for (let sent = 0; sent < size; sent += 64) {
      assert.is(burst.allocate(64), 64);
      for (const handle of burst.handles.subarray(0, 64)) {
        pool.fields[handle * PacketField.WORDS + PacketField.SEGMENT_LENGTH] = 64;
        pool.fields[handle * PacketField.WORDS + PacketField.FLAGS] = sent % 128 === 0 ? 1 : 0;
      }
      assert.is(tx.send(burst), 64);
    }
    useAll(device);
    assert.is(tx.reclaim(), size);
    assert.is(pool.available, before);
    const handles = new Uint32Array(before);
    for (let taken = 0; taken < before; taken += 256) assert.ok(pool.take(handles, taken, 256));
    assert.is(new Set(handles).size, before, 'none twice');
    for (const handle of handles) assert.is(pool.fields[handle * PacketField.WORDS + PacketField.FLAGS], 0);
    pool.freeBuffers(handles, 0, before);
  });
}

const openHandDevice = (format: 'split' | 'packed', options: HandDeviceOptions): HandDevice | PackedHandDevice =>
  format === 'split' ? new HandDevice(options) : new PackedHandDevice(options);

/** Sends all that waits, in order. */
function useAll(device: HandDevice | PackedHandDevice): void {
  if (device instanceof PackedHandDevice) {
    for (const chain of device.txRing.takeSome()) device.txRing.use(chain, 0);
    return;
  }
  for (const id of device.txRing.take()) device.txRing.use(id, 0);
  device.txRing.publish();
}

test('a packet that needs the whole ring goes as soon as the device has sent what was before it', () => {
  using device = new HandDevice({ size: 8, poolSize: 32 });
  const { fields } = device.pool;
  assert.is(device.tx.send(packets(device, [60])), 1);
  const burst = packets(device, new Array(8).fill(20));
  for (let index = 0; index < 7; index++) {
    fields[burst.handles[index]! * PacketField.WORDS + PacketField.NEXT] = burst.handles[index + 1]! + 1;
  }
  burst.count = 1;
  assert.is(device.tx.send(burst), 0, 'seven descriptors are free');
  for (const id of device.txRing.take()) device.txRing.use(id, 0);
  device.txRing.publish();
  assert.is(device.tx.send(burst), 1);
  assert.is(device.tx.room, 0);
});

test('what a device that is behind has sent is looked for once in 64 posted, and by a send of nothing or without room', () => {
  using device = new HandDevice({ size: 256, poolSize: 1024 });
  const { tx, txRing } = device;
  const use = (count: number) => {
    for (const id of txRing.take(count)) txRing.use(id, 0);
    txRing.publish();
  };
  const send = (count: number) => assert.is(tx.send(packets(device, new Array(count).fill(60))), count);
  for (let burst = 0; burst < 2; burst++) send(64);
  send(1);
  assert.is(tx.inFlight, 129, 'looked for: nothing was sent');
  use(10);
  for (let sent = 1; sent <= 64; sent++) {
    send(1);
    assert.is(tx.inFlight, 129 + sent);
  }
  send(1);
  assert.is(tx.inFlight, 129 + 65 - 10, 'as many again are posted');
  use(5);
  send(0);
  assert.is(tx.inFlight, 129 + 65 - 15, 'buffers may be what is wanted');
  for (; tx.room > 1; ) send(1);
  use(2);
  send(3);
  assert.is(tx.room, 0, 'one was free, two came back');
});

test('closing gives back all buffers; packets that the device has not sent count as lost', () => {
  using device = new HandDevice({ size: 8 });
  const burst = packets(device, [60, 60, 60, 60, 60]);
  device.tx.send(burst);
  for (const id of device.txRing.take(2)) device.txRing.use(id, 0);
  device.txRing.publish();
  deliver(device, 3);
  device.stop();
  assert.is(device.sent.drops.lostInFlight, 3);
  assert.is(device.pool.available, device.pool.size);
  device.stop();
  assert.is(device.pool.available, device.pool.size, 'closing twice frees once');
  assert.is(device.rx.receive(burst), 0);
  assert.is(device.tx.send(packets(device, [60])), 0);
});

test('the doorbell rings when the device asks for it, once a burst, and is counted', () => {
  const fd = native.createEventFd(0);
  try {
    using device = new HandDevice({ size: 8, doorbell: { kind: 'eventfd', fd } });
    assert.is(native.drainEventFd(fd), 1n, 'buffers were posted');
    const burst = packets(device, [60, 60, 60]);
    device.tx.send(burst);
    assert.is(native.drainEventFd(fd), 1n);
    device.txRing.views.used[USED_FLAGS] = UsedFlag.NO_NOTIFY;
    device.tx.send(packets(device, [60]));
    assert.is(native.drainEventFd(fd), 0n);
    assert.equal([device.sent.kicksSent, device.sent.kicksSaved], [1, 1]);
    device.tx.send(packets(device, []));
    assert.equal([device.sent.kicksSent, device.sent.kicksSaved], [1, 1], 'nothing posted, nothing to say');
  } finally {
    native.closeFd(fd);
  }
});

test('spec-D32: the header of a packet is all zeroes, whatever stood there, in every size and at every place', () => {
  for (const headerBytes of [10, 12, 20, 24]) {
    using device = new HandDevice({ size: 8, headerBytes });
    const { pool } = device;
    for (let shift = 0; shift < 8; shift++) {
      const burst = packets(device, [60]);
      const handle = burst.handles[0]!;
      pool.fields[handle * PacketField.WORDS + PacketField.DATA_OFFSET] = 40 + shift;
      const start = pool.offset + handle * pool.bufferBytes;
      pool.bytes.fill(0xcc, start, start + pool.bufferBytes);
      assert.is(device.tx.send(burst), 1);
      const [id] = device.txRing.take();
      const sent = device.txRing.buffer(id!);
      assert.is(sent.length, headerBytes + 60);
      assert.ok(
        sent.subarray(0, headerBytes).every((byte) => byte === 0),
        `${headerBytes} bytes at ${40 + shift}`,
      );
      assert.ok(sent.subarray(headerBytes).every((byte) => byte === 0xcc));
      assert.is(pool.bytes[start + 40 + shift - headerBytes - 1], 0xcc, 'and nothing before it');
      device.txRing.use(id!, 0);
      device.txRing.publish();
      device.tx.reclaim();
    }
  }
});

test('on request num_buffers stays as the device left it, and nothing else does', () => {
  using device = new HandDevice({ size: 8, keepNumBuffers: true });
  const { pool } = device;
  for (let other = 0; other < 11; other++) {
    const burst = packets(device, [60]);
    const header = device.pool.offset + burst.handles[0]! * pool.bufferBytes + pool.headroom - 12;
    pool.bytes.fill(0, header, header + 12);
    pool.bytes[header + 10] = 1;
    // Any other byte that is set has the whole header zeroed; ten stands for none.
    if (other < 10) pool.bytes[header + other] = 0x80;
    assert.is(device.tx.send(burst), 1);
    const [id] = device.txRing.take();
    const sent = [...device.txRing.buffer(id!).subarray(0, 12)];
    assert.equal(sent, other < 10 ? new Array(12).fill(0) : [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0], `byte ${other}`);
    device.txRing.use(id!, 0);
    device.txRing.publish();
    device.tx.reclaim();
  }
});

test('a received packet begins behind the header, in every size of header', () => {
  for (const headerBytes of [10, 12, 20, 24]) {
    using device = new HandDevice({ size: 8, headerBytes, mergeable: headerBytes > 10 });
    const [id] = device.rxRing.take(1);
    const bytes = device.rxRing.buffer(id!);
    assert.is(bytes.length, device.pool.dataBytes + headerBytes);
    for (let index = 0; index < bytes.length; index++) bytes[index] = index;
    bytes[10] = 1;
    bytes[11] = 0;
    device.rxRing.use(id!, headerBytes + 20);
    device.rxRing.publish();
    const burst = new Burst(device.pool, 4);
    assert.is(device.rx.receive(burst), 1);
    const first = headerBytes === 10 ? 1 : headerBytes;
    assert.is(burst.bytes(0).u8(0), first);
    assert.is(burst.bytes(0).length, 20);
    assert.is(burst.bytes(0).u8(19), headerBytes + 19);
    burst.free();
  }
});

test('the last buffers of the largest memory: positions up to 2 GiB', () => {
  using rings = DmaMemory.allocate({ bytes: 2 * ringBytes(4, false), pages: '4K' });
  using memory = DmaMemory.allocate({ bytes: 2 * GiB, pages: '4K' });
  const pool = PacketPool.create(memory, { size: (2 * GiB) / (64 * KiB), bufferBytes: 64 * KiB });
  const counters = QueueCounters.create(2);
  const queue = (index: number): QueueHandle => {
    const ring = placeRing(rings, 4, false);
    ringViews(rings, ring).clear();
    const rest = {
      headerBytes: 12,
      eventIndex: false,
      mergeable: true,
      maxFrameBytes: 65_562,
      doorbell: { kind: 'none' },
    } as const;
    return { index, ring, ...rest };
  };
  // The stack gives the highest handles first.
  const rxQueue = queue(0);
  const rx = new RxQueue(pool, openRing(rings, pool, rxQueue), counters.of(0), rxQueue);
  const txQueue = queue(1);
  const tx = new TxQueue(pool, openRing(rings, pool, txQueue), counters.of(1), txQueue);
  const burst = new Burst(pool, 4);
  assert.is(burst.allocate(1), 1);
  const handle = burst.handles[0]!;
  assert.ok(handle * 64 * KiB > 1.9 * GiB);
  const start = handle * 64 * KiB;
  pool.bytes.fill(0xcc, start, start + 256);
  // Not aligned, so that the header is written byte by byte.
  pool.fields[handle * PacketField.WORDS + PacketField.DATA_OFFSET] = 65;
  burst.bytes(0).setLength(60);
  assert.is(tx.send(burst), 1);
  assert.ok(pool.bytes.subarray(start + 53, start + 65).every((byte) => byte === 0));
  assert.is(pool.bytes[start + 52], 0xcc);
  const device = new HandRing(rings, ringViews(rings, rxQueue.ring));
  const [id] = device.take(1);
  const address =
    BigInt(device.views.desc[id! * DESC_WORDS]!) | (BigInt(device.views.desc[id! * DESC_WORDS + 1]!) << 32n);
  const at = Number(address - memory.iovas.at(0));
  assert.ok(at > 1.9 * GiB);
  pool.bytes[at + 10] = 1;
  pool.bytes[at + 12] = 0x5a;
  device.use(id!, 12 + 20);
  device.publish();
  assert.is(rx.receive(burst), 1);
  assert.is(burst.bytes(0).u8(0), 0x5a);
});

test.run();
