/** What reaches a guest by what it said in its control queue (virtio 1.2 §5.1.6.5.1 to §5.1.6.5.4; spec-E3, spec-E17). */

import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import {
  AnnounceCommand,
  ControlAck,
  ControlClass,
  MacCommand,
  RxCommand,
  VlanCommand,
} from '../../driver/spec/control.js';
import { Feature, type FeatureSet } from '../../driver/spec/features.js';
import { NetStatus, virtioNetConfig } from '../../driver/spec/net-config.js';
import { DescFlag } from '../../driver/spec/ring.js';
import { BUFFERS, GUEST_FEATURES, HandGuest, HandThread, type RawRing, REGION_B } from '../support/hand-guest.js';

const test = suite('receive filter');
const CONTROL = 2;
const RX = 0;
const COMMAND = REGION_B;
const ACK = REGION_B + 65_536n;
const BUFFER_COUNT = 64;
const FEATURES = GUEST_FEATURES.with(
  Feature.MAC,
  Feature.STATUS,
  Feature.CTRL_VQ,
  Feature.CTRL_RX,
  Feature.CTRL_RX_EXTRA,
  Feature.CTRL_VLAN,
  Feature.CTRL_MAC_ADDR,
  Feature.GUEST_ANNOUNCE,
);

type Address = readonly number[];
const OWN: Address = [2, 0, 0, 0, 0, 1];
const OTHER: Address = [2, 0, 0, 0, 0, 2];
/** Differs from `OWN` in the first byte alone. */
const NEAR: Address = [6, 0, 0, 0, 0, 1];
const GROUP: Address = [1, 0, 0x5e, 0, 0, 1];
const OTHER_GROUP: Address = [0x33, 0x33, 0, 0, 0, 1];
const ALL: Address = [255, 255, 255, 255, 255, 255];

const packet = (to: Address, ...behind: number[]): Uint8Array => {
  const bytes = new Uint8Array(60);
  bytes.set([...to, 2, 9, 9, 9, 9, 9, ...(behind.length > 0 ? behind : [0x08, 0x00])]);
  return bytes;
};
const tagged = (to: Address, identifier: number, priority = 0): Uint8Array =>
  packet(to, 0x81, 0x00, (priority << 5) | (identifier >>> 8), identifier & 0xff, 0x08, 0x00);

class FilteredGuest {
  readonly hand: HandGuest;
  readonly config = new Uint8Array(new SharedArrayBuffer(virtioNetConfig.bytes));
  readonly #thread = new HandThread();
  readonly #control: RawRing;
  readonly #rx: RawRing;

  constructor(features: FeatureSet = FEATURES) {
    this.config.set(OWN);
    this.config[6] = NetStatus.LINK_UP | NetStatus.ANNOUNCE;
    this.hand = new HandGuest(this.#thread, { features, config: this.config });
    this.#rx = this.hand.start(RX, 64);
    for (let id = 0; id < BUFFER_COUNT; id++) {
      this.#rx.describe(id, BUFFERS + BigInt(id * 2048), 2048, DescFlag.WRITE);
    }
    // Starting the queue sets what commands say to what it is after a reset.
    this.#control = this.hand.start(CONTROL, 16);
    this.config[6] = NetStatus.LINK_UP | NetStatus.ANNOUNCE;
  }

  command(...bytes: number[]): number {
    this.hand.write(COMMAND, bytes);
    this.hand.write(ACK, [0xee]);
    this.#control.describe(0, COMMAND, bytes.length, DescFlag.NEXT, 1);
    this.#control.describe(1, ACK, 1, DescFlag.WRITE);
    this.#control.offer(0);
    this.hand.poll(1);
    assert.equal(this.#control.takeUsed(), [{ id: 0, length: 1 }]);
    return this.hand.read(ACK, 1)[0]!;
  }

  set(...bytes: number[]): void {
    assert.is(this.command(...bytes), ControlAck.OK, `${bytes.slice(0, 10)}`);
  }
  mode(command: number, isOn: boolean): void {
    this.set(ControlClass.RX, command, isOn ? 1 : 0);
  }
  tables(unicast: readonly Address[], multicast: readonly Address[]): void {
    const table = (addresses: readonly Address[]): number[] => {
      const { length } = addresses;
      return [length & 0xff, length >>> 8, 0, 0, ...addresses.flat()];
    };
    this.set(ControlClass.MAC, MacCommand.TABLE_SET, ...table(unicast), ...table(multicast));
  }

  /** Has the port send packets; returns which of them reach the guest. */
  receive(packets: readonly Uint8Array[]): number[] {
    this.hand.port.queued.push(...packets.map((bytes, number) => bytes.with(59, number)));
    for (let id = 0; id < packets.length; id++) this.#rx.offer(id);
    this.hand.poll(4);
    const used = this.#rx.takeUsed();
    // Buffers that are left are not offered again: the ring takes more than a test uses.
    return used.map(({ id }) => this.hand.read(BUFFERS + BigInt(id * 2048 + 12 + 59), 1)[0]!);
  }
  /** Whether a packet reaches the guest. */
  gets(bytes: Uint8Array): boolean {
    const before = this.#dropped;
    this.hand.port.queued.push(bytes);
    this.#rx.offer(0);
    this.hand.poll(2);
    const used = this.#rx.takeUsed();
    if (used.length === 0) {
      assert.is(this.#dropped, before + 1, 'a packet that does not arrive is counted');
      // The buffer is still there: the next one that arrives takes it.
      this.#rx.restart();
      this.hand.device.stopRing(RX);
      for (let id = 0; id < BUFFER_COUNT; id++) {
        this.#rx.describe(id, BUFFERS + BigInt(id * 2048), 2048, DescFlag.WRITE);
      }
      this.hand.startRaw(RX, this.#rx);
      return false;
    }
    assert.is(this.#dropped, before);
    return true;
  }

  get drops() {
    return this.hand.statistics(RX).drops;
  }
  get #dropped(): number {
    return Object.values(this.drops).reduce((sum, count) => sum + count);
  }

  restart(): void {
    this.hand.device.stopRing(CONTROL);
    this.#control.restart();
    this.hand.startRaw(CONTROL, this.#control);
  }

  [Symbol.dispose](): void {
    this.hand[Symbol.dispose]();
    assert.is(this.#thread.pool.available, this.#thread.pool.size, 'dropped packets are freed');
    this.#thread[Symbol.dispose]();
  }
}

const names = { OWN, OTHER, NEAR, GROUP, OTHER_GROUP, ALL } as const;
type Name = keyof typeof names;

/** Asserts which addresses get through. */
function expectGets(guest: FilteredGuest, wanted: readonly Name[], what: string): void {
  const got = (Object.keys(names) as Name[]).filter((name) => guest.gets(packet(names[name])));
  assert.equal(got, wanted, what);
}

const EVERYTHING = Object.keys(names) as Name[];

test('everything arrives until the guest has said something, also with VLAN tags', () => {
  using guest = new FilteredGuest();
  expectGets(guest, EVERYTHING, 'without a command');
  assert.ok(guest.gets(tagged(OTHER, 5)));
  assert.is(guest.command(ControlClass.RX, RxCommand.PROMISC, 7), ControlAck.ERR);
  expectGets(guest, EVERYTHING, 'after a command that was refused');
});

test('virtio 1.2 §5.1.6.5.1: each receive mode', () => {
  const { PROMISC, ALLMULTI, ALLUNI, NOMULTI, NOUNI, NOBCAST } = RxCommand;
  const plain: readonly Name[] = ['OWN', 'ALL'];
  for (const [modes, wanted] of [
    [[], plain],
    [[PROMISC], EVERYTHING],
    [[ALLMULTI], ['OWN', 'GROUP', 'OTHER_GROUP', 'ALL']],
    [[ALLUNI], ['OWN', 'OTHER', 'NEAR', 'ALL']],
    [[NOMULTI], plain],
    [[NOMULTI, ALLMULTI], plain],
    [[NOUNI], ['ALL']],
    [[NOUNI, ALLUNI], ['ALL']],
    [[NOBCAST], ['OWN']],
    [[NOUNI, NOMULTI, NOBCAST], []],
    [[NOUNI, NOMULTI, NOBCAST, PROMISC], EVERYTHING],
  ] as const) {
    using guest = new FilteredGuest();
    guest.mode(PROMISC, false);
    for (const mode of modes) guest.mode(mode, true);
    expectGets(guest, wanted, `modes ${modes}`);
    for (const mode of modes) guest.mode(mode, false);
    expectGets(guest, plain, `modes ${modes}, off again`);
  }
});

test('virtio 1.2 §5.1.6.5.2: addresses of the tables, which each command replaces', () => {
  using guest = new FilteredGuest();
  guest.tables([OTHER], [GROUP]);
  expectGets(guest, ['OWN', 'OTHER', 'GROUP', 'ALL'], 'both tables');
  guest.tables([NEAR], []);
  expectGets(guest, ['OWN', 'NEAR', 'ALL'], 'others');
  guest.tables([], [OTHER_GROUP]);
  expectGets(guest, ['OWN', 'OTHER_GROUP', 'ALL'], 'groups');
  // Each kind by its own table.
  guest.tables([GROUP], [OTHER]);
  expectGets(guest, ['OWN', 'ALL'], 'in the wrong table');
  guest.mode(RxCommand.NOUNI, true);
  guest.tables([OTHER], [GROUP]);
  expectGets(guest, ['GROUP', 'ALL'], 'no unicast');
  assert.ok(guest.drops.filterUnicast > 0 && guest.drops.filterMulticast > 0);
  guest.mode(RxCommand.NOBCAST, true);
  assert.not(guest.gets(packet(ALL)));
  assert.is(guest.drops.filterBroadcast, 1);
});

test('virtio 1.2 §5.1.6.5.2: every address of a full table, and none that is not in it', () => {
  using guest = new FilteredGuest();
  const address = (number: number): Address => [2, 7, 7, number & 7, number >>> 8, number & 0xff];
  guest.tables(
    Array.from({ length: 256 }, (_, number) => address(number)),
    [],
  );
  for (let number = 0; number < 512; number += 5) {
    assert.is(guest.gets(packet(address(number))), number < 256, `${address(number)}`);
  }
});

test('tables that are longer than what is kept: all of that kind arrive, and the other table counts', () => {
  const many = (first: number): Address[] =>
    Array.from({ length: 257 }, (_, number) => [first, 8, 8, 8, number >>> 8, number & 0xff]);
  using guest = new FilteredGuest();
  guest.tables(many(2), [GROUP]);
  expectGets(guest, ['OWN', 'OTHER', 'NEAR', 'GROUP', 'ALL'], 'too many unicast');
  guest.tables([OTHER], many(3));
  expectGets(guest, ['OWN', 'OTHER', 'GROUP', 'OTHER_GROUP', 'ALL'], 'too many multicast');
  // More bytes than are read at a time.
  guest.tables([...many(2), ...many(2), ...many(2)], [GROUP]);
  expectGets(guest, ['OWN', 'OTHER', 'NEAR', 'GROUP', 'ALL'], 'three times as many');
  guest.tables([], []);
  expectGets(guest, ['OWN', 'ALL'], 'short again');
});

test('spec-E17: ADDR_SET is in the configuration space when the command is used, and is the address from there on', () => {
  using guest = new FilteredGuest();
  guest.set(ControlClass.MAC, MacCommand.ADDR_SET, ...OTHER);
  assert.equal([...guest.config.subarray(0, 6)], OTHER);
  expectGets(guest, ['OTHER', 'ALL'], 'the address that was set');
  assert.is(guest.command(ControlClass.MAC, MacCommand.ADDR_SET, ...GROUP), ControlAck.ERR);
  assert.equal([...guest.config.subarray(0, 6)], OTHER, "a group's address is refused");
});

test('without MAC the device does not know the address: all unicast arrives until ADDR_SET', () => {
  using guest = new FilteredGuest(FEATURES.without(Feature.MAC));
  guest.mode(RxCommand.PROMISC, false);
  expectGets(guest, ['OWN', 'OTHER', 'NEAR', 'ALL'], 'an address that the driver made up');
  guest.set(ControlClass.MAC, MacCommand.ADDR_SET, ...OTHER);
  expectGets(guest, ['OTHER', 'ALL'], 'the address that was set');
  guest.restart();
  guest.mode(RxCommand.PROMISC, false);
  expectGets(guest, ['OWN', 'OTHER', 'NEAR', 'ALL'], 'after a reset it is not known again');
});

test('virtio 1.2 §5.1.6.5.3: VLANs that were added; what is in no VLAN arrives', () => {
  using guest = new FilteredGuest();
  guest.set(ControlClass.VLAN, VlanCommand.ADD, 5, 0);
  guest.set(ControlClass.VLAN, VlanCommand.ADD, 0xff, 0x0f);
  guest.set(ControlClass.VLAN, VlanCommand.ADD, 32, 0);
  guest.set(ControlClass.VLAN, VlanCommand.DEL, 32, 0);
  for (const [identifier, isWanted] of [
    [0, true],
    [5, true],
    [0xfff, true],
    [4, false],
    [6, false],
    [32, false],
    [37, false],
    [0xffe, false],
    [0x105, false],
  ] as const) {
    assert.is(guest.gets(tagged(OWN, identifier)), isWanted, `VLAN ${identifier}`);
    assert.is(guest.gets(tagged(ALL, identifier, 7)), isWanted, `VLAN ${identifier} with a priority`);
    assert.is(guest.gets(tagged(OTHER, identifier)), false, 'the address counts as well');
  }
  assert.ok(guest.gets(packet(OWN)));
  // The outer tag of a provider is none of these.
  assert.ok(guest.gets(packet(OWN, 0x88, 0xa8, 0, 9)));
  assert.ok(guest.drops.filterVlan > 0);
  guest.mode(RxCommand.PROMISC, true);
  assert.ok(guest.gets(tagged(OTHER, 77)), 'promiscuous');
});

test('without CTRL_VLAN every VLAN arrives', () => {
  using guest = new FilteredGuest(FEATURES.without(Feature.CTRL_VLAN));
  guest.mode(RxCommand.PROMISC, false);
  assert.ok(guest.gets(tagged(OWN, 77)));
});

test('the header in any number of segments', () => {
  for (const segmentBytes of [1, 5, 6, 13, 14, 15, 16]) {
    using guest = new FilteredGuest();
    guest.hand.port.segmentBytes = segmentBytes;
    guest.set(ControlClass.VLAN, VlanCommand.ADD, 5, 0);
    expectGets(guest, ['OWN', 'ALL'], `segments of ${segmentBytes}`);
    assert.ok(guest.gets(tagged(OWN, 5)));
    assert.not(guest.gets(tagged(OWN, 6)));
  }
});

test('of a burst what is wanted arrives in order, the rest is freed', () => {
  using guest = new FilteredGuest();
  guest.mode(RxCommand.PROMISC, false);
  const packets = Array.from({ length: 60 }, (_, number) => packet(number % 3 === 1 ? OTHER : OWN));
  const expected = packets.map((_, number) => number).filter((number) => number % 3 !== 1);
  assert.equal(guest.receive(packets), expected);
  assert.is(guest.drops.filterUnicast, 20);
});

test('spec-E3: after a reset, or when the queue starts afresh, nothing that was set counts', () => {
  using guest = new FilteredGuest();
  guest.tables([OTHER], [GROUP]);
  guest.set(ControlClass.MAC, MacCommand.ADDR_SET, ...NEAR);
  guest.set(ControlClass.VLAN, VlanCommand.ADD, 5, 0);
  guest.restart();
  expectGets(guest, EVERYTHING, 'nothing was said yet');
  assert.equal([...guest.config.subarray(0, 6)], OWN, 'the address is what it was');
  guest.mode(RxCommand.ALLMULTI, false);
  expectGets(guest, ['OWN', 'ALL'], 'the tables are empty');
  assert.not(guest.gets(tagged(OWN, 5)));
});

test('virtio 1.2 §5.1.6.5.4: ANNOUNCE is cleared by ACK, and the rest of the status stays', () => {
  using guest = new FilteredGuest();
  guest.set(ControlClass.ANNOUNCE, AnnounceCommand.ACK);
  assert.is(guest.config[6], NetStatus.LINK_UP);
  guest.set(ControlClass.ANNOUNCE, AnnounceCommand.ACK);
  expectGets(guest, EVERYTHING, 'which is no filter');
});

test.run();
