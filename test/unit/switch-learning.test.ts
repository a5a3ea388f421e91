/** The learning switch with members made by hand: learn, flood, age, VLANs, loops, order, slow members. */

import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { LearningSwitch } from '../../driver/backend/switch/learning-switch.js';
import { type SwitchCounterName, switchCounters } from '../../driver/backend/switch/switch-counters.js';
import type { SwitchMember, SwitchMemberOptions } from '../../driver/backend/switch/switch-member.js';
import { ErrorCode, VirtioError } from '../../driver/errors.js';
import { Burst } from '../../driver/memory/burst.js';
import { DmaMemory } from '../../driver/memory/dma-memory.js';
import { PacketField, PacketFlag } from '../../driver/memory/packet-fields.js';
import { PacketPool } from '../../driver/memory/packet-pool.js';
import { PacketView } from '../../driver/memory/packet-view.js';

const test = suite('learning switch');

const BROADCAST = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff];
/** A station's address; the first byte is even, the rest has its number in it, so that all words matter. */
const mac = (number: number): number[] => [0x02, number, 0xfe, 0x80 | number, number, 0xf0 | number];

interface Frame {
  readonly from: readonly number[];
  readonly to: readonly number[];
  /** The tag's TCI. */
  readonly tag?: number;
  readonly payload?: readonly number[];
}

const frame = ({ from, to, tag, payload = [1, 2, 3] }: Frame): number[] => [
  ...to,
  ...from,
  ...(tag === undefined ? [] : [0x81, 0x00, tag >>> 8, tag & 0xff]),
  0x88,
  0xb5,
  ...payload,
];

/** A switch with a clock that stands until it is set. */
class Bench {
  readonly memory: DmaMemory;
  readonly pool: PacketPool;
  readonly theSwitch: LearningSwitch;
  readonly #view: PacketView;
  readonly #burst: Burst;
  seconds = 1000;

  constructor(size = 1024, bufferBytes = 2048) {
    this.memory = DmaMemory.allocate({ bytes: size * bufferBytes, pages: '4K' });
    this.pool = PacketPool.create(this.memory, { size, bufferBytes });
    this.theSwitch = new LearningSwitch(this.pool, {}, () => this.seconds);
    this.#view = new PacketView(this.pool);
    this.#burst = new Burst(this.pool, 64);
  }

  /** A member that asks for its packets. */
  join(options: SwitchMemberOptions = {}): SwitchMember {
    const member = this.theSwitch.join(options);
    this.take(member);
    return member;
  }

  /** Lets time pass, and the switch see it; the members given ask for packets meanwhile. */
  pass(seconds: number, ...asking: readonly SwitchMember[]): void {
    for (let second = 0; second < seconds; second++) {
      this.seconds += 1;
      for (const member of asking) assert.equal(this.take(member), []);
      for (let turn = 0; turn < 256; turn++) this.theSwitch.turn();
    }
  }

  send(member: SwitchMember, ...frames: readonly Frame[]): void {
    for (const one of frames) {
      assert.is(this.#burst.allocate(1), 1);
      this.#view.move(this.#burst.handles[this.#burst.count - 1]!).fill(Uint8Array.from(frame(one)));
      if (this.#burst.count === this.#burst.capacity) this.theSwitch.fromMember(this.#burst, member);
    }
    this.theSwitch.fromMember(this.#burst, member);
    assert.is(this.#burst.count, 0);
  }

  /** Sends the packet of these segments. */
  sendSegments(member: SwitchMember, segments: readonly (readonly number[])[], flags = 0): void {
    const { pool } = this;
    const handles = new Uint32Array(segments.length);
    assert.ok(pool.allocate(handles, 0, segments.length));
    for (const [index, bytes] of segments.entries()) {
      this.#view.move(handles[index]!).fill(Uint8Array.from(bytes));
      const next = handles[index + 1];
      if (next !== undefined) pool.fields[handles[index]! * PacketField.WORDS + PacketField.NEXT] = next + 1;
    }
    const first = handles[0]! * PacketField.WORDS;
    pool.fields[first + PacketField.PACKET_LENGTH] = segments.flat().length;
    pool.fields[first + PacketField.FLAGS] = flags;
    this.#burst.handles[this.#burst.count++] = handles[0]!;
    this.theSwitch.fromMember(this.#burst, member);
  }

  /** All that waits for a member, as bytes. */
  take(member: SwitchMember, queue = 0): number[][] {
    const found: number[][] = [];
    const burst = new Burst(this.pool, 64);
    do {
      burst.free();
      this.theSwitch.toMember(burst, member, queue);
      for (let index = 0; index < burst.count; index++) {
        found.push([...this.#view.move(burst.handles[index]!).copyPacket()]);
      }
    } while (burst.count > 0);
    return found;
  }

  /** Ends the switch; every buffer is back in the pool. */
  end(...members: readonly SwitchMember[]): void {
    for (const member of members) this.theSwitch.leave(member);
    assert.is(this.theSwitch.members, 0);
    assert.is(this.theSwitch.stations, 0);
    assert.is(this.pool.available, this.pool.size, 'every buffer is free again');
    this.memory.close();
  }
}

const count = (member: SwitchMember, name: SwitchCounterName): number => member.counters[switchCounters[name]]!;

test('an unknown destination is flooded; once learned, packets go there alone; none comes back', () => {
  const bench = new Bench();
  const [a, b, c] = [bench.join(), bench.join(), bench.join()] as const;
  const first = { from: mac(1), to: mac(2) };
  bench.send(a, first);
  assert.equal([bench.take(a), bench.take(b), bench.take(c)], [[], [frame(first)], [frame(first)]]);
  const answer = { from: mac(2), to: mac(1) };
  bench.send(b, answer);
  assert.equal([bench.take(a), bench.take(b), bench.take(c)], [[frame(answer)], [], []]);
  bench.send(a, first);
  assert.equal([bench.take(a), bench.take(b), bench.take(c)], [[], [frame(first)], []]);
  assert.is(count(a, 'flooded'), 1);
  assert.is(count(a, 'received'), 2);
  assert.is(count(b, 'sent'), 2);
  bench.end(a, b, c);
});

test('broadcast and multicast go to all others, and group addresses are never learned', () => {
  const bench = new Bench();
  const [a, b, c] = [bench.join(), bench.join(), bench.join()] as const;
  const multicast = [0x01, 0x00, 0x5e, 1, 2, 3];
  for (const from of [BROADCAST, multicast, [0, 0, 0, 0, 0, 0]]) {
    bench.send(a, { from, to: BROADCAST });
    assert.is(bench.theSwitch.stations, 0, `${from} is no station`);
    assert.is(bench.take(b).length + bench.take(c).length, 2);
  }
  // Were it learned behind `a`, this would go there alone.
  bench.send(b, { from: mac(2), to: multicast });
  assert.equal([bench.take(a).length, bench.take(b).length, bench.take(c).length], [1, 0, 1]);
  bench.end(a, b, c);
});

test('addresses that bridges keep to themselves go nowhere, their neighbours do (IEEE 802.1D §7.12.6)', () => {
  const bench = new Bench();
  const [a, b] = [bench.join(), bench.join()] as const;
  for (let last = 0; last < 16; last++) bench.send(a, { from: mac(1), to: [0x01, 0x80, 0xc2, 0, 0, last] });
  assert.equal(bench.take(b), []);
  assert.is(count(a, 'dropReserved'), 16);
  for (const to of [
    [0x01, 0x80, 0xc2, 0, 0, 0x10],
    [0x01, 0x80, 0xc2, 0, 1, 0],
    [0x01, 0x80, 0xc2, 1, 0, 0],
  ]) {
    bench.send(a, { from: mac(1), to });
    assert.is(bench.take(b).length, 1, `${to}`);
  }
  bench.end(a, b);
});

test('a destination behind the member that sends is none of the switch', () => {
  const bench = new Bench();
  const [a, b] = [bench.join(), bench.join()] as const;
  bench.send(a, { from: mac(1), to: BROADCAST });
  bench.take(b);
  bench.send(a, { from: mac(3), to: mac(1) }, { from: mac(1), to: mac(1) });
  assert.equal([bench.take(a), bench.take(b)], [[], []]);
  assert.is(count(a, 'dropFiltered'), 2);
  bench.end(a, b);
});

test('what a packet teaches holds for the next of the same burst', () => {
  const bench = new Bench();
  const [a, b] = [bench.join(), bench.join()] as const;
  bench.send(b, { from: mac(2), to: BROADCAST });
  bench.take(a);
  bench.send(a, { from: mac(1), to: mac(2) }, { from: mac(2), to: mac(2) }, { from: mac(1), to: mac(2) });
  assert.equal(bench.take(b), [frame({ from: mac(1), to: mac(2) })], 'the station is behind the sender by then');
  assert.is(count(a, 'dropFiltered'), 2);
  bench.end(a, b);
});

test('a station that was not seen for 300 s is unknown again; one that moves is found where it is', () => {
  const bench = new Bench();
  const [a, b, c] = [bench.join(), bench.join(), bench.join()] as const;
  bench.send(b, { from: mac(2), to: BROADCAST });
  bench.take(a);
  bench.take(c);
  bench.pass(299, a, b, c);
  bench.send(a, { from: mac(1), to: mac(2) });
  assert.is(bench.take(c).length, 0, 'still known');
  bench.take(b);
  bench.pass(1, a, b, c);
  bench.send(a, { from: mac(1), to: mac(2) });
  assert.is(bench.take(c).length, 1, 'flooded');
  bench.take(b);
  bench.send(b, { from: mac(2), to: mac(1) });
  bench.send(c, { from: mac(2), to: mac(1) });
  assert.is(bench.take(a).length, 2);
  assert.equal([count(b, 'moves'), count(c, 'moves')], [0, 1]);
  bench.send(a, { from: mac(1), to: mac(2) });
  assert.equal([bench.take(b).length, bench.take(c).length], [0, 1]);
  bench.end(a, b, c);
});

test('a member that leaves is forgotten, and its number goes to another', () => {
  const bench = new Bench();
  const [a, b] = [bench.join(), bench.join()] as const;
  bench.send(b, { from: mac(2), to: BROADCAST });
  bench.take(a);
  bench.send(a, { from: mac(1), to: mac(2) });
  bench.theSwitch.leave(b);
  bench.theSwitch.leave(b);
  const [c, d] = [bench.join(), bench.join()] as const;
  assert.is(c.number, b.number);
  bench.send(a, { from: mac(1), to: mac(2) });
  assert.equal([bench.take(c).length, bench.take(d).length], [1, 1], 'the station of the member that left is unknown');
  bench.end(a, c, d);
});

test('access VLANs: apart from each other, tagged for the trunk, untagged from it (IEEE 802.1Q)', () => {
  const bench = new Bench();
  const ten = [bench.join({ vlan: 10 }), bench.join({ vlan: 10 })] as const;
  const twenty = bench.join({ vlan: 20 });
  const trunk = bench.join();
  const all = [...ten, twenty, trunk];
  const takeAll = () => all.map((member) => bench.take(member));
  const out = { from: mac(1), to: BROADCAST };
  bench.send(ten[0], out);
  assert.equal(takeAll(), [[], [frame(out)], [], [frame({ ...out, tag: 10 })]]);
  // The priority of a tag is not the VLAN's.
  bench.send(trunk, { from: mac(2), to: mac(1), tag: 0xa00a });
  assert.equal(takeAll(), [[frame({ from: mac(2), to: mac(1) })], [], [], []]);
  bench.send(ten[0], { from: mac(1), to: mac(2) });
  assert.equal(takeAll(), [[], [], [], [frame({ from: mac(1), to: mac(2), tag: 10 })]]);
  // In another VLAN the same address is unknown.
  bench.send(trunk, { from: mac(2), to: mac(1), tag: 20 });
  assert.equal(takeAll(), [[], [], [frame({ from: mac(2), to: mac(1) })], []]);
  // What a trunk sends untagged is in no access VLAN.
  bench.send(trunk, { from: mac(2), to: BROADCAST }, { from: mac(2), to: BROADCAST, tag: 0x2000 });
  assert.equal(takeAll(), [[], [], [], []]);
  bench.end(...all);
});

test('a guest in an access VLAN does not get out of it with tags of its own', () => {
  const bench = new Bench();
  const [access, twenty, trunk] = [bench.join({ vlan: 10 }), bench.join({ vlan: 20 }), bench.join()] as const;
  for (const tag of [20, 10, 0, 0xfff]) bench.send(access, { from: mac(1), to: BROADCAST, tag });
  assert.equal([bench.take(twenty), bench.take(trunk)], [[], []]);
  assert.is(count(access, 'dropVlan'), 4);
  bench.send(trunk, { from: mac(1), to: BROADCAST, tag: 0xfff });
  assert.is(count(trunk, 'dropVlan'), 1, 'number 4095 is reserved');
  bench.sendSegments(trunk, [[...BROADCAST, ...mac(1), 0x81, 0, 0, 20]]);
  assert.is(count(trunk, 'dropVlan'), 2, 'a tag without a type behind it');
  bench.end(access, twenty, trunk);
});

test('trunks get the packets of trunks as they were, tagged or not', () => {
  const bench = new Bench();
  const [a, b] = [bench.join(), bench.join()] as const;
  const sent = [undefined, 0, 1, 100, 0xeffe].map((tag) => ({
    from: mac(1),
    to: BROADCAST,
    ...(tag === undefined ? {} : { tag }),
  }));
  bench.send(a, ...sent);
  assert.equal(bench.take(b), sent.map(frame));
  bench.end(a, b);
});

test('a flood copies packets of several buffers whole, with tags for those that need them', () => {
  const bench = new Bench(256);
  const [a, b, c, trunk] = [bench.join({ vlan: 7 }), bench.join({ vlan: 7 }), bench.join({ vlan: 7 }), bench.join()];
  const head = frame({ from: mac(1), to: BROADCAST });
  const segments = [head, Array.from({ length: 1000 }, (_, at) => at & 0xff), [9, 8, 7]];
  bench.sendSegments(a!, segments);
  assert.equal(bench.take(b!), [segments.flat()]);
  assert.equal(bench.take(c!), [segments.flat()]);
  const tagged = frame({ from: mac(1), to: BROADCAST, tag: 7 });
  assert.equal(bench.take(trunk!), [[tagged, ...segments.slice(1)].flat()]);
  bench.end(a!, b!, c!, trunk!);
});

test('packets stay in order between two members, through floods and learning', () => {
  const bench = new Bench();
  const [a, b, c] = [bench.join(), bench.join(), bench.join()] as const;
  const numbered = (number: number, to: readonly number[]): Frame => ({ from: mac(1), to, payload: [number] });
  const got: number[] = [];
  let number = 0;
  for (let round = 0; round < 60; round++) {
    bench.send(a, numbered(number++, mac(2)), numbered(number++, BROADCAST), numbered(number++, mac(2)));
    if (round === 30) bench.send(b, { from: mac(2), to: mac(9) });
    if (round % 7 === 0) got.push(...bench.take(b).map((bytes) => bytes[14]!));
    bench.take(c);
    bench.take(a);
  }
  got.push(...bench.take(b).map((bytes) => bytes[14]!));
  assert.equal(
    got,
    Array.from({ length: number }, (_, index) => index),
  );
  bench.end(a, b, c);
});

test('a member that takes nothing loses its own packets only, and holds no more than its share', () => {
  const bench = new Bench(1024);
  const [a, slow, quick] = [bench.join(), bench.join(), bench.join()] as const;
  bench.send(slow, { from: mac(2), to: BROADCAST });
  bench.send(quick, { from: mac(3), to: BROADCAST });
  for (const member of [a, slow, quick]) bench.take(member);
  let arrived = 0;
  for (let round = 0; round < 100; round++) {
    const frames = Array.from({ length: 16 }, () => ({ from: mac(1), to: mac(2) }));
    bench.send(a, ...frames, { from: mac(1), to: mac(3) });
    arrived += bench.take(quick).length;
  }
  assert.is(arrived, 100, 'the other gets all of its own');
  assert.is(slow.buffers, Math.floor(1024 / 2 / 3), 'a third of half of the buffers');
  assert.is(count(slow, 'dropNotTaken'), 1600 - slow.buffers);
  assert.is(count(quick, 'dropNotTaken'), 0);
  // Packets of several buffers count as so many.
  bench.take(slow);
  for (let round = 0; round < 20; round++) {
    bench.sendSegments(a, [frame({ from: mac(1), to: mac(2) }), ...Array.from({ length: 15 }, () => [1])]);
  }
  assert.is(slow.buffers, 160);
  bench.end(a, slow, quick);
});

test('a thread that was held up for long forgets no member', () => {
  const bench = new Bench();
  const [a, b] = [bench.join(), bench.join()] as const;
  bench.send(a, { from: mac(1), to: BROADCAST });
  bench.seconds += 60;
  for (let turn = 0; turn < 256; turn++) bench.theSwitch.turn();
  assert.is(bench.take(b).length, 1);
  bench.end(a, b);
});

test('a member that nobody asks packets for any more gets none, and holds none (2 s)', () => {
  const bench = new Bench();
  const [a, b] = [bench.join(), bench.join()] as const;
  bench.send(a, { from: mac(1), to: BROADCAST });
  assert.is(b.buffers, 1);
  bench.pass(2, a);
  assert.is(b.buffers, 1);
  bench.pass(1, a);
  assert.is(b.buffers, 0);
  bench.send(a, { from: mac(1), to: BROADCAST });
  assert.is(count(b, 'dropNotTaken'), 2);
  assert.equal(bench.take(b), []);
  bench.send(a, { from: mac(1), to: BROADCAST });
  assert.is(bench.take(b).length, 1, 'it asks again, and gets again');
  // With several queues, what left one before does not count when it is given up.
  const c = bench.join({ queues: 2 });
  for (let packet = 0; packet < 8; packet++) bench.send(a, { from: mac(1), to: mac(3), payload: [packet] });
  const some = new Burst(bench.pool, 3);
  bench.theSwitch.toMember(some, c, 0);
  assert.is(some.count, 3);
  assert.is(c.buffers, 5);
  some.free();
  bench.take(b);
  bench.pass(3, a, b);
  assert.is(c.buffers, 0);
  bench.end(a, b, c);
});

test('flows are spread over the queues that are asked, each on one', () => {
  const bench = new Bench();
  const [a, b] = [bench.join(), bench.join({ queues: 4 })] as const;
  for (const queue of [0, 1, 2]) bench.take(b, queue);
  const flows = Array.from({ length: 64 }, (_, flow) => ({ from: mac(flow % 16), to: mac(100 + (flow >> 4)) }));
  const queueOf = new Map<string, number>();
  const used = [0, 0, 0, 0];
  for (let round = 0; round < 3; round++) {
    bench.send(a, ...flows);
    for (const queue of [0, 1, 2, 3]) {
      // The last one was never asked, and stays so.
      if (queue === 3) continue;
      for (const bytes of bench.take(b, queue)) {
        const flow = bytes.slice(0, 12).join();
        assert.is(queueOf.get(flow) ?? queue, queue, `flow ${flow} keeps to its queue`);
        queueOf.set(flow, queue);
        used[queue]! += 1;
      }
    }
  }
  assert.is(used[0]! + used[1]! + used[2]!, 192);
  assert.ok(Math.min(used[0]!, used[1]!, used[2]!) > 20, `spread: ${used}`);
  bench.end(a, b);
});

test('packets whose checksum is missing go to all members: it is completed where one does not', () => {
  const bench = new Bench();
  const [a, b, c] = [bench.join(), bench.join(), bench.join()] as const;
  bench.sendSegments(a, [frame({ from: mac(1), to: BROADCAST })], PacketFlag.NEEDS_CHECKSUM);
  assert.equal([bench.take(b).length, bench.take(c).length], [1, 1]);
  bench.end(a, b, c);
});

test('a member may leave the work that some other does, whoever that is', () => {
  const bench = new Bench();
  const { SEGMENT_TCP4, NEEDS_CHECKSUM } = PacketFlag;
  const [a, b, c] = [bench.join(), bench.join(), bench.join()] as const;
  const works = (): number[] => [a, b, c].map((member) => bench.theSwitch.workFor(member));
  assert.equal(works(), [0, 0, 0]);
  bench.theSwitch.setWork(a, NEEDS_CHECKSUM | SEGMENT_TCP4);
  bench.theSwitch.setWork(b, NEEDS_CHECKSUM);
  assert.equal(works(), [NEEDS_CHECKSUM, NEEDS_CHECKSUM | SEGMENT_TCP4, NEEDS_CHECKSUM | SEGMENT_TCP4]);
  bench.theSwitch.leave(a);
  assert.equal(
    [b, c].map((member) => bench.theSwitch.workFor(member)),
    [0, NEEDS_CHECKSUM],
  );
  bench.end(b, c);
});

test('without buffers for copies a flood reaches one member, and the reserve stays', () => {
  const bench = new Bench(256);
  const members = Array.from({ length: 5 }, () => bench.join());
  const held = new Uint32Array(160);
  assert.ok(bench.pool.allocate(held, 0, held.length));
  for (let round = 0; round < 30; round++) bench.send(members[0]!, { from: mac(1), to: BROADCAST });
  assert.ok(bench.pool.available >= 64 - 30, `${bench.pool.available} free`);
  assert.ok(
    members.slice(1).some((member) => count(member, 'dropNoBuffer') > 0),
    'copies were refused',
  );
  bench.pool.free(held, 0, held.length);
  bench.end(...members);
});

test('VLANs that there are not are refused', () => {
  const bench = new Bench(64);
  for (const vlan of [-1, 4095, 1.5, Number.NaN]) {
    assert.throws(
      () => bench.theSwitch.join({ vlan }),
      (error: unknown) => error instanceof VirtioError && error.code === ErrorCode.INVALID_ARGUMENT,
    );
  }
  bench.end();
});

test.run();
