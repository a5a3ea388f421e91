/** A switch that is on several poll threads: packets between their pools, learning, no loops. */

import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { createSwitchFabric, type SwitchFabric } from '../../driver/backend/switch/fabric.js';
import { LearningSwitch } from '../../driver/backend/switch/learning-switch.js';
import { type SwitchCounterName, switchCounters } from '../../driver/backend/switch/switch-counters.js';
import type { SwitchMember, SwitchMemberOptions } from '../../driver/backend/switch/switch-member.js';
import { ErrorCode, VirtioError } from '../../driver/errors.js';
import { Burst } from '../../driver/memory/burst.js';
import { DmaMemory } from '../../driver/memory/dma-memory.js';
import { PacketField, PacketFlag } from '../../driver/memory/packet-fields.js';
import { PacketPool } from '../../driver/memory/packet-pool.js';
import { PacketView } from '../../driver/memory/packet-view.js';

const test = suite('switch on several threads');

const BROADCAST = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff];
const mac = (number: number): number[] => [0x02, 0, 0, 0, 0, number];
const frame = (from: number, to: number | readonly number[], ...payload: number[]): number[] => [
  ...(typeof to === 'number' ? mac(to) : to),
  ...mac(from),
  0x88,
  0xb5,
  ...payload,
];
const tagged = (bytes: readonly number[], vlan: number): number[] => [
  ...bytes.slice(0, 12),
  0x81,
  0,
  vlan >>> 8,
  vlan & 0xff,
  ...bytes.slice(12),
];

/** One thread's part: everything runs in the test's own thread, one after the other. */
class Part {
  readonly memory: DmaMemory;
  readonly pool: PacketPool;
  readonly theSwitch: LearningSwitch;
  readonly #members: SwitchMember[] = [];
  readonly #view: PacketView;
  seconds = 0;

  constructor(fabric: SwitchFabric, bufferBytes = 2048) {
    this.memory = DmaMemory.allocate({ bytes: 512 * bufferBytes, pages: '4K' });
    this.pool = PacketPool.create(this.memory, { size: 512, bufferBytes });
    this.theSwitch = new LearningSwitch(this.pool, { fabric }, () => this.seconds);
    this.#view = new PacketView(this.pool);
  }

  join(options: SwitchMemberOptions = {}): SwitchMember {
    const member = this.theSwitch.join(options);
    this.#members.push(member);
    this.take(member);
    return member;
  }

  /** Sends a packet, cut into buffers of so many bytes. */
  send(member: SwitchMember, bytes: readonly number[], segmentBytes = this.pool.dataBytes): void {
    const burst = new Burst(this.pool, 64);
    const handles = new Uint32Array(Math.ceil(bytes.length / segmentBytes));
    assert.ok(this.pool.allocate(handles, 0, handles.length));
    for (const [index, handle] of handles.entries()) {
      this.#view.move(handle).fill(Uint8Array.from(bytes.slice(index * segmentBytes, (index + 1) * segmentBytes)));
      const next = handles[index + 1];
      if (next !== undefined) this.pool.fields[handle * PacketField.WORDS + PacketField.NEXT] = next + 1;
    }
    this.pool.fields[handles[0]! * PacketField.WORDS + PacketField.PACKET_LENGTH] = bytes.length;
    burst.handles[burst.count++] = handles[0]!;
    this.theSwitch.fromMember(burst, member);
  }

  take(member: SwitchMember): number[][] {
    const found: number[][] = [];
    const burst = new Burst(this.pool, 64);
    do {
      burst.free();
      this.theSwitch.toMember(burst, member, 0);
      for (let index = 0; index < burst.count; index++) {
        found.push([...this.#view.move(burst.handles[index]!).copyPacket()]);
      }
    } while (burst.count > 0);
    return found;
  }

  close(): void {
    for (const member of this.#members) this.theSwitch.leave(member);
    assert.is(this.pool.available, this.pool.size, 'every buffer is free again');
    this.theSwitch.close();
    this.memory.close();
  }
}

const turnAll = (...parts: readonly Part[]): void => {
  for (let round = 0; round < 8; round++) for (const part of parts) part.theSwitch.turn();
};
const count = (member: SwitchMember, name: SwitchCounterName): number => member.counters[switchCounters[name]]!;

test('three threads: a flood reaches every member once, an answer its destination alone', () => {
  const fabric = createSwitchFabric(3);
  const parts = [new Part(fabric), new Part(fabric), new Part(fabric)] as const;
  const members = parts.flatMap((part) => [part.join({ identity: 0 }), part.join({ identity: 0 })]);
  const partOf = (member: number): Part => parts[member >> 1]!;
  const takeAll = () => members.map((member, number) => partOf(number).take(member).length);
  partOf(0).send(members[0]!, frame(1, BROADCAST));
  turnAll(...parts);
  assert.equal(takeAll(), [0, 1, 1, 1, 1, 1]);
  partOf(5).send(members[5]!, frame(2, 1));
  turnAll(...parts);
  assert.equal(takeAll(), [1, 0, 0, 0, 0, 0], 'learned over the link');
  partOf(0).send(members[0]!, frame(1, 2));
  turnAll(...parts);
  assert.equal(takeAll(), [0, 0, 0, 0, 0, 1]);
  assert.is(count(members[0]!, 'flooded'), 1);
  for (const part of parts) part.close();
});

test('packets of any length and shape arrive byte by byte and in order, also over the end of the ring', () => {
  const fabric = createSwitchFabric(2);
  const [near, far] = [new Part(fabric), new Part(fabric, 1024)] as const;
  const [a, b] = [near.join(), far.join()] as const;
  far.send(b, frame(2, 1));
  turnAll(near);
  near.take(a);
  let seed = 1;
  const random = (below: number): number => {
    seed = (Math.imul(seed, 1_664_525) + 1_013_904_223) >>> 0;
    return Math.floor((seed / 2 ** 32) * below);
  };
  let bytes = 0;
  for (let round = 0; round < 400; round++) {
    const sent = Array.from({ length: 1 + random(4) }, () => {
      const body = Array.from({ length: random(3000) }, (_, at) => (at * 7 + round) & 0xff);
      return frame(1, 2, ...body);
    });
    for (const one of sent) near.send(a, one, random(2) === 0 ? undefined : 100 + random(900));
    turnAll(far);
    assert.equal(far.take(b), sent, `round ${round}`);
    bytes += sent.flat().length;
  }
  assert.ok(bytes > 2 * 512 * 1024, 'more than twice through the ring');
  near.close();
  far.close();
});

test('what a packet leaves to its receiver goes along; members share the buffers of their own thread', () => {
  const fabric = createSwitchFabric(4);
  const [near, far] = [new Part(fabric), new Part(fabric)] as const;
  const [a, kernel, guest] = [near.join(), far.join(), far.join()] as const;
  assert.equal([a.limit, kernel.limit, guest.limit], [256, 128, 128]);
  const burst = new Burst(near.pool, 1);
  burst.allocate(1);
  burst.bytes(0).fill(Uint8Array.from(frame(1, BROADCAST)));
  const field = burst.handles[0]! * PacketField.WORDS;
  near.pool.fields[field + PacketField.FLAGS] = PacketFlag.NEEDS_CHECKSUM | (1400 << 16);
  near.pool.fields[field + PacketField.CHECKSUM] = 34 | (16 << 16);
  near.theSwitch.fromMember(burst, a);
  turnAll(far);
  const found = new Burst(far.pool, 64);
  far.theSwitch.toMember(found, kernel, 0);
  assert.is(found.count, 1);
  const at = found.handles[0]! * PacketField.WORDS;
  assert.is(far.pool.fields[at + PacketField.FLAGS], PacketFlag.NEEDS_CHECKSUM | (1400 << 16));
  assert.is(far.pool.fields[at + PacketField.CHECKSUM], 34 | (16 << 16));
  found.free();
  assert.is(far.take(guest).length, 1);
  near.close();
  far.close();
});

test('what work the members of a thread do, the others know', () => {
  const fabric = createSwitchFabric(2);
  const [near, far] = [new Part(fabric), new Part(fabric)] as const;
  const [a, b] = [near.join(), far.join()] as const;
  far.theSwitch.setWork(b, PacketFlag.NEEDS_CHECKSUM);
  assert.equal([near.theSwitch.workFor(a), far.theSwitch.workFor(b)], [PacketFlag.NEEDS_CHECKSUM, 0]);
  far.close();
  assert.is(near.theSwitch.workFor(a), 0);
  near.close();
});

test('a slow thread costs the sender its packets, counted, and nobody else', () => {
  const fabric = createSwitchFabric(2);
  const [near, far] = [new Part(fabric), new Part(fabric)] as const;
  const [a, other, b] = [near.join(), near.join(), far.join()] as const;
  far.send(b, frame(2, 1));
  turnAll(near);
  near.take(a);
  near.take(other);
  near.send(a, frame(1, 2));
  turnAll(far);
  assert.is(far.take(b).length, 1);
  near.send(other, frame(3, 1));
  assert.is(near.take(a).length, 1);
  const large = frame(1, 2, ...Array.from({ length: 1400 }, () => 1));
  for (let packet = 0; packet < 1000; packet++) {
    near.send(a, large);
    near.send(a, frame(1, 3));
    assert.is(near.take(other).length, 1);
  }
  const lost = count(a, 'dropBetweenThreads');
  assert.ok(lost > 100 && lost < 900, `${lost} of 1000`);
  let arrived = 0;
  for (let turn = 0; turn < 100; turn++) {
    turnAll(far);
    arrived += far.take(b).length;
  }
  assert.is(arrived + lost + count(b, 'dropNotTaken'), 1000);
  near.close();
  far.close();
});

test('VLANs hold over links: access members of both threads are together, a trunk sees the tag', () => {
  const fabric = createSwitchFabric(2);
  const [near, far] = [new Part(fabric), new Part(fabric)] as const;
  const ten = near.join({ vlan: 10 });
  const [farTen, farTwenty, farTrunk] = [far.join({ vlan: 10 }), far.join({ vlan: 20 }), far.join()] as const;
  near.send(ten, frame(1, BROADCAST, 1));
  turnAll(far);
  assert.equal(
    [far.take(farTen), far.take(farTwenty), far.take(farTrunk)],
    [[frame(1, BROADCAST, 1)], [], [tagged(frame(1, BROADCAST, 1), 10)]],
  );
  far.send(farTrunk, tagged(frame(2, 1), 10));
  turnAll(near);
  assert.equal(near.take(ten), [frame(2, 1)]);
  // Packets of several members that come together keep their VLANs.
  const twenty = near.join({ vlan: 20 });
  near.send(ten, frame(1, BROADCAST, 1));
  near.send(twenty, frame(3, BROADCAST, 2));
  near.send(ten, frame(1, BROADCAST, 3));
  turnAll(far);
  assert.equal(
    [far.take(farTen), far.take(farTwenty), far.take(farTrunk).length],
    [[frame(1, BROADCAST, 1), frame(1, BROADCAST, 3)], [frame(3, BROADCAST, 2)], 3],
  );
  near.close();
  far.close();
});

test('a guest whose pairs are on two threads gets nothing of its own, and does not seem to move', () => {
  const fabric = createSwitchFabric(2);
  const [near, far] = [new Part(fabric), new Part(fabric)] as const;
  const [a, alsoA] = [near.join({ identity: 1 }), far.join({ identity: 1 })] as const;
  const b = far.join({ identity: 2 });
  for (let round = 0; round < 3; round++) {
    near.send(a, frame(1, BROADCAST));
    far.send(alsoA, frame(1, BROADCAST));
    turnAll(near, far);
    assert.equal([near.take(a).length, far.take(alsoA).length, far.take(b).length], [0, 0, 2]);
  }
  assert.equal([count(a, 'moves'), count(alsoA, 'moves')], [0, 0]);
  far.send(b, frame(2, 1));
  turnAll(near, far);
  assert.equal([near.take(a).length, far.take(alsoA).length], [0, 1], 'on the thread where it is, too');
  near.close();
  far.close();
});

test('a thread that ends leaves its place, and what was for it is for nobody', () => {
  const fabric = createSwitchFabric(2);
  const near = new Part(fabric);
  const a = near.join();
  let far = new Part(fabric);
  assert.throws(
    () => new Part(fabric),
    (error: unknown) => error instanceof VirtioError && error.code === ErrorCode.NO_RESOURCES,
  );
  far.send(far.join(), frame(2, 1));
  turnAll(near);
  near.take(a);
  near.send(a, frame(1, 2));
  far.close();
  near.send(a, frame(1, 2));
  assert.is(count(a, 'dropFiltered'), 1, 'there is nobody');
  near.seconds += 1;
  for (let turn = 0; turn < 256; turn++) near.theSwitch.turn();
  assert.is(near.theSwitch.stations, 1, 'its stations are forgotten');
  far = new Part(fabric);
  const b = far.join();
  turnAll(far);
  assert.equal(far.take(b), []);
  near.send(a, frame(1, BROADCAST));
  turnAll(far);
  assert.is(far.take(b).length, 1);
  near.close();
  far.close();
});

test('fabrics for no thread, or for too many, are refused', () => {
  for (const threads of [0, 65, 1.5]) {
    assert.throws(
      () => createSwitchFabric(threads),
      (error: unknown) => error instanceof VirtioError && error.code === ErrorCode.INVALID_ARGUMENT,
    );
  }
});

test.run();
