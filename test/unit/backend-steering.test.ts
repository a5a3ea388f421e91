/** Which receiveq packets get to, and the hash in their header (virtio 1.2 §5.1.6.5.6, §5.1.6.5.7; spec-E3, spec-E16, spec-E18; abuse row 60). */

import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { DeviceThread } from '../../driver/backend/device-thread.js';
import { NetDevice } from '../../driver/backend/net-device.js';
import { HASH_TYPES } from '../../driver/backend/packet-hash.js';
import { sinkPort } from '../../driver/backend/ports/built-in.js';
import { DEVICE_BURST } from '../../driver/backend/ring-context.js';
import type { Burst } from '../../driver/memory/burst.js';
import { ControlClass, MqCommand } from '../../driver/spec/control.js';
import { Feature } from '../../driver/spec/features.js';
import { HashType, RSS_KEY_BYTES_MIN, RSS_TABLE_ENTRIES_MIN, virtioNetConfig } from '../../driver/spec/net-config.js';
import { HashReport, virtioNetHdrHash } from '../../driver/spec/net-header.js';
import { BUFFERS_A_QUEUE, COMMAND_FEATURES, CommandedGuest, le } from '../support/commanded-guest.js';
import { address4, dualStack, HASH_KEY, ipv4, referenceHash, tcp, udp } from '../support/flow-packets.js';
import { REGION_B } from '../support/hand-guest.js';

const test = suite('steering');
const PAIRS = 3;
const REPORTING = COMMAND_FEATURES.with(Feature.HASH_REPORT);

interface Rss {
  readonly types?: number;
  readonly table?: readonly number[];
  readonly unclassified?: number;
  readonly pairs?: number;
  readonly key?: ArrayLike<number>;
}

const rss = ({
  types = HASH_TYPES,
  table = [0, 1, 2, 1],
  unclassified = 0,
  pairs = PAIRS,
  key = HASH_KEY,
}: Rss): number[] => [
  ...[ControlClass.MQ, MqCommand.RSS_CONFIG, ...le(4, types), ...le(2, table.length - 1, unclassified, ...table)],
  ...[...le(2, pairs), key.length, ...Array.from(key)],
];
const hashConfig = (types: number, key: ArrayLike<number> = HASH_KEY): number[] => [
  ...[ControlClass.MQ, MqCommand.HASH_CONFIG, ...le(4, types), ...new Array(8).fill(0)],
  ...[key.length, ...Array.from(key)],
];
const pairsSet = (pairs: number): number[] => [ControlClass.MQ, MqCommand.VQ_PAIRS_SET, ...le(2, pairs)];

const FROM = address4('10.0.0.1');
const TO = address4('10.0.0.2');
const flow = (number: number): Uint8Array => ipv4(FROM, TO, tcp(1000 + number, 80));
const hashOfFlow = (number: number): number =>
  referenceHash(HASH_KEY, [...FROM, ...TO, ...portBytes(1000 + number), 0, 80]);
const portBytes = (port: number): number[] => [port >>> 8, port & 0xff];
const ARP = Uint8Array.from([...new Array(12).fill(2), 0x08, 0x06, ...new Array(46).fill(0)]);
const flows = (count: number): Uint8Array[] => Array.from({ length: count }, (_, number) => flow(number));

test('spec-E18: the hash, masked, chooses an entry of the table; what has no hash goes to the unclassified queue', () => {
  for (const table of [[0, 1, 2, 1], [2], [1, 0], Array.from({ length: 128 }, (_, entry) => (entry * 7) % PAIRS)]) {
    using guest = new CommandedGuest();
    guest.set(rss({ table, unclassified: 2 }));
    const expected: Uint8Array[][] = [[], [], []];
    for (let number = 0; number < 24; number++) {
      expected[table[hashOfFlow(number) & (table.length - 1)]!]!.push(flow(number));
    }
    expected[2]!.push(ARP);
    const arrived = guest.receive([...flows(24), ARP]);
    assert.equal(
      arrived.map((queue) => queue.map(({ packet }) => packet)),
      expected,
      `${table.length} entries`,
    );
  }
});

test('each flow keeps to its queue, in order', () => {
  using guest = new CommandedGuest();
  guest.set(rss({}));
  const packets = Array.from({ length: 30 }, (_, number) =>
    ipv4(FROM, TO, { ...udp(7, 8), bytes: [0, 7, 0, 8, 0, 9, 0, 0, number] }),
  );
  const arrived = guest.receive(packets);
  const queue = [0, 1, 2, 1][referenceHash(HASH_KEY, [...FROM, ...TO, 0, 7, 0, 8]) & 3]!;
  assert.equal(
    arrived[queue]!.map(({ packet }) => packet.at(-1)),
    packets.map((_, number) => number),
  );
  assert.is(arrived.flat().length, packets.length);
});

test('types that are off: other packets go by their addresses, or to the unclassified queue', () => {
  using guest = new CommandedGuest();
  guest.set(rss({ types: HashType.UDPv4, table: [1], unclassified: 2 }));
  assert.equal(
    guest.receive([flow(1), ipv4(FROM, TO, udp(1, 2))]).map((queue) => queue.length),
    [0, 1, 1],
  );
  guest.set(rss({ types: 0, table: [1], unclassified: 0 }));
  assert.equal(
    guest.receive([flow(1), ipv4(FROM, TO, udp(1, 2))]).map((queue) => queue.length),
    [2, 0, 0],
  );
});

test('VQ_PAIRS_SET and HASH_CONFIG end it: packets come where the port has them for', () => {
  for (const command of [pairsSet(1), pairsSet(PAIRS), hashConfig(HASH_TYPES)]) {
    using guest = new CommandedGuest(REPORTING);
    guest.set(rss({ table: [2], unclassified: 2 }));
    assert.equal(
      guest.receive(flows(4)).map((queue) => queue.length),
      [0, 0, 4],
    );
    guest.set(command);
    assert.equal(
      guest.receive(flows(4)).map((queue) => queue.length),
      [4, 0, 0],
    );
  }
});

test('spec-E3: after a reset, or when the control queue starts afresh, nothing is steered and nothing hashed', () => {
  using guest = new CommandedGuest(REPORTING);
  guest.set(rss({ table: [2], unclassified: 2 }));
  guest.hand.device.stopRing(2 * PAIRS);
  guest.control.restart();
  guest.hand.startRaw(2 * PAIRS, guest.control);
  const arrived = guest.receive(flows(2));
  assert.equal(
    arrived.map((queue) => queue.length),
    [2, 0, 0],
  );
  assert.is(virtioNetHdrHash.read(view(arrived[0]![0]!.header)).hash_report, HashReport.NONE);
});

test('virtio 1.2 §5.1.6.4.3: value and report of each packet, beside steering and without it', () => {
  for (const command of [hashConfig(HASH_TYPES), rss({ table: [0], unclassified: 0 })]) {
    using guest = new CommandedGuest(REPORTING);
    guest.set(command);
    const packets = [...dualStack(), ...flows(4), ARP];
    const arrived = guest.receive(packets)[0]!;
    assert.equal(
      arrived.map(({ packet }) => packet),
      packets,
    );
    const headers = arrived.map(({ header }) => virtioNetHdrHash.read(view(header)));
    assert.equal(
      headers.map(({ hash_report }) => hash_report),
      [
        HashReport.TCPv4,
        HashReport.TCPv6,
        HashReport.UDPv4,
        HashReport.UDPv6,
        ...new Array(4).fill(HashReport.TCPv4),
        0,
      ],
    );
    for (let number = 0; number < 4; number++) assert.is(headers[4 + number]!.hash_value, hashOfFlow(number));
    assert.is(headers.at(-1)!.hash_value, 0);
    for (const { num_buffers, flags, gso_type } of headers) assert.equal([num_buffers, flags, gso_type], [1, 0, 0]);
  }
});

test('until HASH_CONFIG no hash is reported; another key and other types count from the next packet on', () => {
  using guest = new CommandedGuest(REPORTING);
  const report = (): readonly number[] => {
    const { hash_value, hash_report } = virtioNetHdrHash.read(view(guest.receive([flow(0)])[0]![0]!.header));
    return [hash_value, hash_report];
  };
  assert.equal(report(), [0, HashReport.NONE]);
  guest.set(hashConfig(HASH_TYPES));
  assert.equal(report(), [hashOfFlow(0), HashReport.TCPv4]);
  const key = HASH_KEY.toReversed();
  const input = [...FROM, ...TO];
  guest.set(hashConfig(HashType.IPv4, key));
  assert.equal(report(), [referenceHash(key, input), HashReport.IPv4]);
  guest.set(hashConfig(HashType.IPv4, key.subarray(0, 9)));
  assert.equal(report(), [referenceHash(key.subarray(0, 9), input), HashReport.IPv4]);
  guest.set(hashConfig(0, []));
  assert.equal(report(), [0, HashReport.NONE]);
});

test('headers in any number of segments, over any number of the guest buffers: the same hash and queue', () => {
  for (const segmentBytes of [1, 13, 20, 33, 41, 127]) {
    using guest = new CommandedGuest(REPORTING);
    guest.hand.port.segmentBytes = segmentBytes;
    guest.set(rss({}));
    const packets = [...dualStack(), ...flows(4)];
    const arrived = guest.receive(packets);
    const whole = ((): readonly (readonly string[])[] => {
      using other = new CommandedGuest(REPORTING);
      other.set(rss({}));
      return texts(other.receive(packets));
    })();
    assert.equal(texts(arrived), whole, `segments of ${segmentBytes}`);
  }
});

const texts = (queues: ReturnType<CommandedGuest['receive']>): readonly (readonly string[])[] =>
  queues.map((queue) => queue.map(({ header, packet }) => Buffer.concat([header, packet]).toString('hex')));

test('a queue that the guest gives no buffers to loses packets, counted, and holds no other up', () => {
  using guest = new CommandedGuest();
  guest.set(rss({ table: [0, 1], unclassified: 0 }));
  // Of the second queue nothing comes back: it takes what it has, and a burst waits.
  const count = 400;
  let arrived = 0;
  for (let number = 0; number < count; number += 10) {
    guest.hand.port.queued.push(...Array.from({ length: 10 }, (_, at) => flow(number + at)));
    guest.hand.poll(4);
    arrived += guest.arrivedIn(0).length;
  }
  const wanted = Array.from({ length: count }, (_, number) => hashOfFlow(number) & 1).filter(
    (queue) => queue === 0,
  ).length;
  assert.is(arrived, wanted, 'all of the first queue');
  const { drops, packets } = guest.hand.statistics(2);
  assert.is(packets, BUFFERS_A_QUEUE);
  assert.is(drops.notTaken, count - wanted - BUFFERS_A_QUEUE - DEVICE_BURST);
});

test('packets that a port bounces are steered as well', () => {
  const bounce = {
    room: () => 64,
    fromGuest: () => undefined,
    bounce: (_burst: Burst) => undefined,
    toGuest: () => undefined,
    close: () => undefined,
  };
  using guest = new CommandedGuest(COMMAND_FEATURES, PAIRS, () => bounce);
  guest.set(rss({ table: [2, 1], unclassified: 0 }));
  const transmit = guest.hand.start(1, 16);
  const expected: Uint8Array[][] = [[], [], []];
  for (let number = 0; number < 8; number++) {
    const at = REGION_B + 131_072n + BigInt(number * 256);
    guest.hand.write(at, [...new Array(12).fill(0), ...flow(number)]);
    transmit.describe(number, at, 12 + flow(number).length, 0);
    transmit.offer(number);
    expected[[2, 1][hashOfFlow(number) & 1]!]!.push(flow(number));
  }
  guest.hand.poll(4);
  assert.equal(
    guest.arrived().map((queue) => queue.map(({ packet }) => packet)),
    expected,
  );
});

test('row 60: configurations that are refused change nothing', () => {
  using guest = new CommandedGuest(REPORTING);
  guest.set(rss({ table: [2], unclassified: 2 }));
  const good = rss({});
  const withBytes = (at: number, ...bytes: readonly number[]): number[] => good.toSpliced(at, bytes.length, ...bytes);
  for (const [what, bytes] of [
    ['a type that is none', rss({ types: HASH_TYPES + 1 })],
    ['all types there could be', rss({ types: 0xffff_ffff })],
    ['a table of 3', rss({ table: [0, 1, 2] })],
    ['a table of 256', rss({ table: new Array(256).fill(0) })],
    ['a table of 65536', withBytes(6, 0xff, 0xff)],
    ['a mask that is not the length of the table', withBytes(6, 7, 0)],
    ['an entry that is no queue', rss({ table: [0, 1, 2, PAIRS] })],
    ['an entry with the reserved bit', rss({ table: [0, 0x8000] })],
    ['an entry of all ones', rss({ table: [0xffff] })],
    ['an unclassified queue that is none', rss({ unclassified: PAIRS })],
    ['no transmitq', rss({ pairs: 0 })],
    ['more transmitqs than there are', rss({ pairs: PAIRS + 1 })],
    ['a key of 41 bytes', rss({ key: new Uint8Array(41) })],
    ['a key of 255 bytes', rss({ key: new Uint8Array(255) })],
    ['a key length that is not the key', withBytes(good.length - 41, 39)],
    ['one byte more', [...good, 0]],
    ['hash types that are none', hashConfig(HASH_TYPES + 1)],
    ['a hash key of 41 bytes', hashConfig(HASH_TYPES, new Uint8Array(41))],
    ['hash configuration and a byte', [...hashConfig(HASH_TYPES), 0]],
  ] as const) {
    guest.refuses(bytes, what);
  }
  for (let length = 0; length < good.length; length++) guest.refuses(good.slice(0, length), `${length} bytes`);
  const hash = hashConfig(HASH_TYPES);
  for (let length = 2; length < hash.length; length++) guest.refuses(hash.slice(0, length), `${length} bytes of hash`);
  assert.equal(
    guest.receive(flows(4)).map((queue) => queue.length),
    [0, 0, 4],
  );
});

test('spec-E16: what the configuration says of it, and when it is offered', async () => {
  await using thread = await DeviceThread.start();
  await using other = await DeviceThread.start();
  await using device = new NetDevice(thread, { port: sinkPort(), queuePairs: 2 });
  await using single = new NetDevice(thread, { port: sinkPort() });
  await using spread = new NetDevice([thread, other], { port: sinkPort(), queuePairs: 2 });
  await using most = new NetDevice(thread, { port: sinkPort(), queuePairs: 128 });
  const config = virtioNetConfig.read(view(device.config));
  assert.ok(config.rss_max_key_size >= RSS_KEY_BYTES_MIN);
  assert.ok(config.rss_max_indirection_table_length >= RSS_TABLE_ENTRIES_MIN);
  assert.is(config.supported_hash_types, HASH_TYPES);
  assert.ok(device.offered.has(Feature.RSS) && device.offered.has(Feature.HASH_REPORT));
  assert.not(single.offered.has(Feature.RSS), 'one pair');
  assert.not(spread.offered.has(Feature.RSS), 'pairs of several threads');
  assert.ok(spread.offered.has(Feature.HASH_REPORT));
  assert.not(most.offered.has(Feature.HASH_REPORT), 'no control queue');
});

const view = (bytes: Uint8Array): DataView => new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);

test.run();
