/** The flow hash: the published vectors, every type of virtio, and headers that are not whole (virtio 1.2 §5.1.6.4.2, §5.1.6.4.3). */

import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { HASH_TYPES, PacketHash } from '../../driver/backend/packet-hash.js';
import { TOEPLITZ_INPUT_BYTES, ToeplitzHash } from '../../driver/backend/toeplitz-hash.js';
import { HashType, HashTypeBit } from '../../driver/spec/net-config.js';
import { HashReport } from '../../driver/spec/net-header.js';
import {
  address4,
  address6,
  dualStack,
  extension,
  fragment4,
  HASH_KEY,
  ipv4,
  ipv6,
  referenceHash,
  tagged,
  tcp,
  udp,
} from '../support/flow-packets.js';

const test = suite('packet hash');

/** Microsoft's "Verifying the RSS Hash Calculation": destination, source, hash of addresses, hash with ports. */
const VECTORS_4 = [
  ['161.142.100.80', 1766, '66.9.149.187', 2794, 0x323e8fc2, 0x51ccc178],
  ['65.69.140.83', 4739, '199.92.111.2', 14230, 0xd718262a, 0xc626b0ea],
  ['12.22.207.184', 38024, '24.19.198.95', 12898, 0xd2d0a5de, 0x5c2b394a],
  ['209.142.163.6', 2217, '38.27.205.30', 48228, 0x82989176, 0xafc7327f],
  ['202.188.127.2', 1303, '153.39.163.191', 44251, 0x5d1809c5, 0x10e828a2],
] as const;
const VECTORS_6 = [
  ['3ffe:2501:200:3:0:0:0:1', 1766, '3ffe:2501:200:1fff:0:0:0:7', 2794, 0x2cc18cd5, 0x40207d3d],
  ['ff02:0:0:0:0:0:0:1', 4739, '3ffe:501:8:0:260:97ff:fe40:efab', 14230, 0x0f0c461c, 0xdde51bbf],
  ['fe80:0:0:0:200:f8ff:fe21:67cf', 38024, '3ffe:1900:4545:3:200:f8ff:fe21:67cf', 44251, 0x4b61e985, 0x02d1feef],
] as const;

const SOURCE6 = address6('3ffe:501:8:0:260:97ff:fe40:efab');
const DESTINATION6 = address6('fe80:0:0:0:200:f8ff:fe21:67cf');
const HOME = address6('2001:db8:0:0:0:0:0:1');
const ROUTED = address6('2001:db8:0:0:0:0:0:2');

/** Hash and report of a packet, with bytes that are not its own on both sides. */
function hashOf(packet: Uint8Array, types = HASH_TYPES, key = HASH_KEY): readonly [value: number, report: number] {
  const hash = new PacketHash();
  hash.setUp(types, key);
  const bytes = new Uint8Array(packet.length + 64).fill(0x11);
  bytes.set(packet, 32);
  hash.compute(bytes, 32, packet.length);
  return [hash.value, hash.report];
}

test('the published vectors, IPv4 and IPv6, with ports and without', () => {
  for (const [to, toPort, from, fromPort, addresses, ports] of VECTORS_4) {
    const packet = ipv4(address4(from), address4(to), tcp(fromPort, toPort));
    assert.equal(hashOf(packet), [ports, HashReport.TCPv4], `${from} TCP`);
    assert.equal(hashOf(packet, HashType.IPv4 | HashType.UDPv4), [addresses, HashReport.IPv4], `${from} addresses`);
    const datagram = ipv4(address4(from), address4(to), udp(fromPort, toPort));
    assert.equal(hashOf(datagram), [ports, HashReport.UDPv4], `${from} UDP`);
  }
  for (const [to, toPort, from, fromPort, addresses, ports] of VECTORS_6) {
    const packet = ipv6(address6(from), address6(to), tcp(fromPort, toPort));
    assert.equal(hashOf(packet), [ports, HashReport.TCPv6], `${from} TCP`);
    assert.equal(hashOf(packet, HashType.IPv6 | HashType.UDPv6), [addresses, HashReport.IPv6], `${from} addresses`);
    assert.equal(hashOf(ipv6(address6(from), address6(to), udp(fromPort, toPort))), [ports, HashReport.UDPv6]);
  }
});

test('the table is the definition, bit by bit, for keys of any length', () => {
  for (const keyBytes of [0, 1, 3, 16, 39, 40]) {
    const key = HASH_KEY.slice(0, keyBytes);
    const toeplitz = new ToeplitzHash();
    toeplitz.setKey(key);
    for (let round = 0; round < 50; round++) {
      const input = Uint8Array.from({ length: TOEPLITZ_INPUT_BYTES }, (_, at) => (at * 73 + round * 151) & 0xff);
      assert.is(
        toeplitz.add(0, input, 0, input.length, 0) >>> 0,
        referenceHash(key, input),
        `${keyBytes} bytes of key`,
      );
    }
  }
});

test('each mask of types: the first of TCP or UDP, then addresses, then nothing', () => {
  const [from, to] = [address4('10.0.0.1'), address4('10.0.0.2')];
  const input = [...from, ...to];
  const ports = [0x12, 0x34, 0x56, 0x78];
  for (let types = 0; types <= HASH_TYPES; types++) {
    for (const [layer, bit] of [
      [tcp(0x1234, 0x5678), HashTypeBit.TCPv4],
      [udp(0x1234, 0x5678), HashTypeBit.UDPv4],
    ] as const) {
      const withPorts = (types & (1 << bit)) !== 0;
      const report = withPorts ? bit + 1 : (types & HashType.IPv4) !== 0 ? HashReport.IPv4 : HashReport.NONE;
      const value = report === HashReport.NONE ? 0 : referenceHash(HASH_KEY, [...input, ...(withPorts ? ports : [])]);
      assert.equal(hashOf(ipv4(from, to, layer), types), [value, report], `types ${types.toString(2)}, bit ${bit}`);
    }
  }
});

test('IPv6 with extension headers: home address and routing header count with the _EX types, and with no other', () => {
  const home = extension('destination', HOME);
  const routed = extension('routing', ROUTED);
  const plain = extension('hop-by-hop');
  const ports = [0x12, 0x34, 0x56, 0x78];
  for (const [extensions, source, destination] of [
    [[home], HOME, DESTINATION6],
    [[routed], SOURCE6, ROUTED],
    [[plain, routed, home], HOME, ROUTED],
    [[plain], SOURCE6, DESTINATION6],
    [[extension('destination', HOME, 3)], HOME, DESTINATION6],
  ] as const) {
    const segment = ipv6(SOURCE6, DESTINATION6, tcp(0x1234, 0x5678), extensions);
    const datagram = ipv6(SOURCE6, DESTINATION6, udp(0x1234, 0x5678), extensions);
    const moved = [...source, ...destination];
    const own = [...SOURCE6, ...DESTINATION6];
    const { TCP_EX, UDP_EX, IP_EX, TCPv6, UDPv6, IPv6 } = HashType;
    for (const [packet, types, input, report] of [
      [segment, HASH_TYPES, [...moved, ...ports], HashReport.TCPv6_EX],
      [datagram, HASH_TYPES, [...moved, ...ports], HashReport.UDPv6_EX],
      [segment, IP_EX | TCPv6, moved, HashReport.IPv6_EX],
      [datagram, TCP_EX | IP_EX, moved, HashReport.IPv6_EX],
      [segment, UDP_EX | TCPv6 | IPv6, [...own, ...ports], HashReport.TCPv6],
      [datagram, TCP_EX | UDPv6, [...own, ...ports], HashReport.UDPv6],
      [segment, IPv6 | UDP_EX, own, HashReport.IPv6],
    ] as const) {
      assert.equal(hashOf(packet, types), [referenceHash(HASH_KEY, input), report], `report ${report}`);
    }
    assert.equal(hashOf(segment, UDP_EX | UDPv6), [0, HashReport.NONE]);
  }
  // Without such headers the _EX types are of no packet.
  const bare = ipv6(SOURCE6, DESTINATION6, tcp(1, 2));
  assert.equal(hashOf(bare, TCP_EX_ONLY), [0, HashReport.NONE]);
});

const TCP_EX_ONLY = HashType.TCP_EX | HashType.UDP_EX | HashType.IP_EX;

test('fragments go by their addresses, the first one too', () => {
  const [from, to] = [address4('10.0.0.1'), address4('10.0.0.2')];
  const own = referenceHash(HASH_KEY, [...from, ...to]);
  for (const offsetAndFlags of [0x2000, 0x2001, 0x0001, 0x1fff]) {
    const packet = fragment4(ipv4(from, to, tcp(1, 2)), offsetAndFlags);
    assert.equal(hashOf(packet), [own, HashReport.IPv4], `0x${offsetAndFlags.toString(16)}`);
  }
  // "Do not fragment" is no fragment.
  assert.is(hashOf(fragment4(ipv4(from, to, tcp(1, 2)), 0x4000))[1], HashReport.TCPv4);
  for (const [offset, report] of [
    [0x0001, HashReport.IPv6_EX],
    [0x0008, HashReport.IPv6_EX],
    [0x0000, HashReport.TCPv6_EX],
  ] as const) {
    const packet = ipv6(SOURCE6, DESTINATION6, tcp(1, 2), [extension('fragment', undefined, offset)]);
    assert.is(hashOf(packet)[1], report, `fragment ${offset}`);
  }
});

test('one tag and two are passed over; what is no IP has no hash', () => {
  for (const packet of dualStack()) {
    const plain = hashOf(packet);
    assert.is.not(plain[1], HashReport.NONE);
    assert.equal(hashOf(tagged(packet, 0x8100)), plain);
    assert.equal(hashOf(tagged(tagged(packet, 0x8100), 0x88a8)), plain);
    assert.equal(hashOf(tagged(tagged(tagged(packet, 0x8100), 0x8100), 0x8100)), [0, HashReport.NONE]);
  }
  for (const type of [0x0806, 0x0000, 0x88cc]) {
    const packet = new Uint8Array(60);
    packet.set([type >>> 8, type & 0xff], 12);
    assert.equal(hashOf(packet), [0, HashReport.NONE]);
  }
});

test('packets cut at every length: what is not whole does not count, and nothing behind is looked at', () => {
  const extensions = [extension('hop-by-hop'), extension('routing', ROUTED), extension('destination', HOME)];
  for (const packet of [...dualStack(), ipv6(SOURCE6, DESTINATION6, tcp(1, 2), extensions)]) {
    let best = 0;
    for (let length = 0; length <= packet.length; length++) {
      const cut = packet.subarray(0, length);
      const first = hashOf(cut);
      // The same, whatever stands behind it.
      const hash = new PacketHash();
      hash.setUp(HASH_TYPES, HASH_KEY);
      const bytes = new Uint8Array(packet.length + 64).fill(0xee);
      bytes.set(cut);
      hash.compute(bytes, 0, length);
      assert.equal([hash.value, hash.report], first, `${length} of ${packet.length} bytes`);
      if (first[1] !== HashReport.NONE) best = first[1];
    }
    assert.is(hashOf(packet)[1], best);
  }
});

test('headers that lie: lengths, versions, endless extension headers and options', () => {
  const [from, to] = [address4('10.0.0.1'), address4('10.0.0.2')];
  for (const first of [0x40, 0x41, 0x44, 0x55, 0x65, 0x05]) {
    const packet = ipv4(from, to, tcp(1, 2));
    packet[14] = first;
    assert.equal(hashOf(packet), [0, HashReport.NONE], `first byte 0x${first.toString(16)}`);
  }
  // Options of IPv4 up to the end of the packet, and beyond it.
  const long = ipv4(from, to, tcp(1, 2));
  long[14] = 0x4f;
  assert.is(hashOf(long)[1], HashReport.NONE);
  const many = Array.from({ length: 9 }, () => extension('hop-by-hop'));
  assert.is(hashOf(ipv6(SOURCE6, DESTINATION6, tcp(1, 2), many.slice(1)))[1], HashReport.TCPv6_EX, 'eight of them');
  assert.is(hashOf(ipv6(SOURCE6, DESTINATION6, tcp(1, 2), many))[1], HashReport.IPv6_EX, 'nine of them');
  const endless = ipv6(SOURCE6, DESTINATION6, tcp(1, 2), [extension('destination', HOME)]);
  // The extension header says that it is 2048 bytes long.
  endless[14 + 40 + 1] = 0xff;
  assert.equal(hashOf(endless), [referenceHash(HASH_KEY, [...SOURCE6, ...DESTINATION6]), HashReport.IPv6_EX]);
  const option = ipv6(SOURCE6, DESTINATION6, tcp(1, 2), [extension('destination', HOME)]);
  // The home address says that it is longer than its header.
  option[14 + 40 + 3] = 0x20;
  const own = [...SOURCE6, ...DESTINATION6, 0, 1, 0, 2];
  assert.equal(hashOf(option), [referenceHash(HASH_KEY, own), HashReport.TCPv6_EX]);
});

test('random bytes: any packet has one hash, and its report is one of the types', () => {
  let seed = 7;
  const random = (): number => {
    seed = (Math.imul(seed, 1_103_515_245) + 12_345) >>> 0;
    return seed >>> 16;
  };
  const reports = new Set<number>();
  for (let round = 0; round < 20_000; round++) {
    const base = dualStack()[round % 4]!;
    const packet = base.slice(0, random() % (base.length + 1));
    for (let change = 0; change < 3 && packet.length > 0; change++) packet[random() % packet.length] = random() & 0xff;
    const [value, report] = hashOf(packet);
    assert.ok(report >= 0 && report <= HashReport.UDPv6_EX && (report !== 0 || value === 0));
    reports.add(report);
  }
  assert.ok(reports.size >= 7, `${[...reports]}`);
});

test.run();
