/** The driver's MUSTs of packets with offloads: what it puts into headers, and what it makes of those it gets (virtio 1.2 §5.1.6). */

import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { Burst } from '../../driver/memory/burst.js';
import { PacketField, PacketFlag } from '../../driver/memory/packet-fields.js';
import { PacketView } from '../../driver/memory/packet-view.js';
import { GsoFlag, GsoType, HashReport, NetHeaderFlag, virtioNetHdrHash } from '../../driver/spec/net-header.js';
import { DescFlag } from '../../driver/spec/ring.js';
import { HandDevice } from '../support/hand-device.js';
import type { HandDeviceOptions } from '../support/hand-queues.js';
import { type PacketShape, packetOf, place, placesOf, transportChecksum } from '../support/offload-packets.js';

const test = suite('offloads, driver');
const { FLAGS, CHECKSUM, HASH, VLAN_AND_PORT, WORDS } = PacketField;
const { NEEDS_CHECKSUM, CHECKSUM_VALID, SEGMENT_TCP4, SEGMENT_TCP6, SEGMENT_UDP, SEGMENT_ECN, VLAN, COALESCED } =
  PacketFlag;
const ALL_GSO = SEGMENT_TCP4 | SEGMENT_TCP6 | SEGMENT_UDP | SEGMENT_ECN;
const SIZE = 64;

function withDevice(options: HandDeviceOptions, body: (device: HandDevice, burst: Burst) => void): void {
  using device = new HandDevice({ size: SIZE, poolSize: 8 * SIZE, bufferBytes: 2048, ...options });
  const burst = new Burst(device.pool, 64);
  body(device, burst);
  burst.free();
  device.stop();
  assert.is(device.pool.available, device.pool.size, 'every buffer is back');
}

interface Sent {
  readonly header: ReturnType<typeof virtioNetHdrHash.read>;
  readonly data: Uint8Array;
}

/** Sends one packet with these flags and segment size; returns what the device gets. */
function send(
  device: HandDevice,
  bytes: Uint8Array,
  {
    flags,
    size = 0,
    checksum = 0,
    tag = 0,
    pieces = [],
  }: { flags: number; size?: number; checksum?: number; tag?: number; pieces?: number[] },
): Sent[] {
  const handle = place(device.pool, bytes, pieces);
  device.pool.fields[handle * WORDS + FLAGS] = flags | (size << 16);
  device.pool.fields[handle * WORDS + CHECKSUM] = checksum;
  device.pool.fields[handle * WORDS + VLAN_AND_PORT] = tag;
  const burst = new Burst(device.pool, 1);
  burst.handles[0] = handle;
  burst.count = 1;
  device.tx.send(burst);
  assert.is(burst.count, 0, 'taken or dropped');
  const ring = device.txRing;
  const sent = ring.take().map((head): Sent => {
    const parts = [...chainOf(ring, head)].map((id) => ring.buffer(id));
    const all = new Uint8Array(Buffer.concat(parts));
    const wide = new Uint8Array(virtioNetHdrHash.bytes);
    wide.set(all.subarray(0, 12));
    ring.use(head, 0);
    return { header: virtioNetHdrHash.read(new DataView(wide.buffer)), data: all.slice(12) };
  });
  ring.publish();
  device.tx.reclaim();
  return sent;
}

function* chainOf(ring: HandDevice['txRing'], head: number): Generator<number> {
  const { desc } = ring.views;
  for (let id = head; ; id = desc[4 * id + 3]! >>> 16) {
    yield id;
    if ((desc[4 * id + 3]! & DescFlag.NEXT) === 0) return;
  }
}

const tcp4: PacketShape = { version: 4, protocol: 'tcp', payload: new Uint8Array(5000).fill(7), tcpOptions: 3 };
const tcp6: PacketShape = { ...tcp4, version: 6 };
const udp4: PacketShape = { version: 4, protocol: 'udp', payload: new Uint8Array(3000).fill(9) };
const short: PacketShape = { ...tcp4, payload: Uint8Array.of(1, 2, 3) };

/** A packet whose checksum field has the sum of the pseudo header, as NEEDS_CHECKSUM has it, and where that is. */
function begun(shape: PacketShape): { bytes: Uint8Array; checksum: number } {
  const bytes = packetOf(shape);
  const { transport } = placesOf(shape);
  const offset = shape.protocol === 'tcp' ? 16 : 6;
  new DataView(bytes.buffer).setUint16(transport + offset, transportChecksum(bytes, shape, true));
  return { bytes, checksum: transport | (offset << 16) };
}

test('D34: NEEDS_CSUM with csum_start and csum_offset, the pseudo header left in place, hdr_len exact (§5.1.6.2, §5.1.6.2.1)', () =>
  withDevice({ txOffloads: { flags: NEEDS_CHECKSUM } }, (device) => {
    for (const shape of [short, { ...short, version: 6 as const, tags: 1 }, { ...udp4, payload: Uint8Array.of(5) }]) {
      const { bytes, checksum } = begun(shape);
      const [sent, ...more] = send(device, bytes, { flags: NEEDS_CHECKSUM, checksum });
      assert.is(more.length, 0);
      assert.equal(sent!.data, bytes);
      assert.is(sent!.header.flags, NetHeaderFlag.NEEDS_CSUM);
      assert.is(sent!.header.gso_type, GsoType.NONE);
      assert.is(sent!.header.csum_start | (sent!.header.csum_offset << 16), checksum);
      assert.is(sent!.header.hdr_len, placesOf(shape).payload);
      assert.is(sent!.header.num_buffers, 0);
    }
  }));

test('D32: without CSUM the checksum is complete, and flags are zero (§5.1.6.2.1)', () =>
  withDevice({ txOffloads: { flags: 0 } }, (device) => {
    for (const shape of [short, { ...short, version: 6 as const, tags: 2 }, { ...udp4, payload: Uint8Array.of(5) }]) {
      const { bytes, checksum } = begun(shape);
      const [sent] = send(device, bytes, { flags: NEEDS_CHECKSUM, checksum, pieces: [20, 31] });
      assert.equal(sent!.data, packetOf(shape));
      assert.equal({ ...sent!.header }, { ...sent!.header, flags: 0, gso_type: 0, csum_start: 0, csum_offset: 0 });
    }
  }));

for (const [name, shape, flag, type] of [
  ['TCP over IPv4', tcp4, SEGMENT_TCP4, GsoType.TCPV4],
  ['TCP over IPv6', tcp6, SEGMENT_TCP6, GsoType.TCPV6],
  ['UDP', udp4, SEGMENT_UDP, GsoType.UDP_L4],
] as const) {
  test(`D33: ${name} is left to a device that cuts it: gso_type, gso_size, hdr_len, and NEEDS_CSUM with them (§5.1.6.2.1)`, () =>
    withDevice({ txOffloads: { flags: NEEDS_CHECKSUM | ALL_GSO } }, (device) => {
      const { bytes, checksum } = begun(shape);
      const [sent, ...more] = send(device, bytes, { flags: flag | NEEDS_CHECKSUM | SEGMENT_ECN, size: 1000, checksum });
      assert.is(more.length, 0);
      assert.equal(sent!.data, bytes);
      assert.is(sent!.header.gso_type, type | GsoFlag.ECN);
      assert.is(sent!.header.gso_size, 1000);
      assert.is(sent!.header.flags, NetHeaderFlag.NEEDS_CSUM);
      assert.is(sent!.header.hdr_len, placesOf(shape).payload);
    }));

  test(`D33: ${name} is cut for a device without the feature, whole with NEEDS_CSUM where it has CSUM`, () => {
    for (const flags of [0, NEEDS_CHECKSUM]) {
      withDevice({ txOffloads: { flags }, maxFrameBytes: 1518 }, (device) => {
        const { bytes, checksum } = begun(shape);
        const sent = send(device, bytes, { flags: flag | NEEDS_CHECKSUM, size: 1000, checksum });
        assert.is(sent.length, Math.ceil(shape.payload.length / 1000));
        let payload = 0;
        for (const { header, data } of sent) {
          assert.is(header.gso_type, GsoType.NONE);
          assert.is(header.flags, flags === 0 ? 0 : NetHeaderFlag.NEEDS_CSUM);
          const at = placesOf(shape).transport + (shape.protocol === 'tcp' ? 16 : 6);
          const inPlace = new DataView(data.buffer, data.byteOffset).getUint16(at);
          assert.is(inPlace, transportChecksum(data, shape, flags !== 0));
          payload += data.length - placesOf(shape).payload;
        }
        assert.is(payload, shape.payload.length);
      });
    }
  });
}

test('D33: ECN is told only with HOST_ECN; else the driver cuts (§5.1.6.2.1)', () =>
  withDevice({ txOffloads: { flags: NEEDS_CHECKSUM | SEGMENT_TCP4 } }, (device) => {
    const { bytes, checksum } = begun(tcp4);
    const flags = SEGMENT_TCP4 | NEEDS_CHECKSUM;
    assert.is(send(device, bytes, { flags, size: 1000, checksum }).length, 1);
    assert.is(send(device, bytes, { flags: flags | SEGMENT_ECN, size: 1000, checksum }).length, 5);
  }));

test('D33: a long packet without NEEDS_CHECKSUM is never left to the device, which would need NEEDS_CSUM', () =>
  withDevice({ txOffloads: { flags: NEEDS_CHECKSUM | ALL_GSO } }, (device) => {
    const sent = send(device, packetOf(tcp4), { flags: SEGMENT_TCP4, size: 1000 });
    assert.is(sent.length, 5);
    for (const { header } of sent) assert.is(header.gso_type, GsoType.NONE);
  }));

test('D33: DATA_VALID and RSC_INFO are the device’s to set: what was received with them is sent on without (§5.1.6.2.1)', () =>
  withDevice({ txOffloads: { flags: NEEDS_CHECKSUM | ALL_GSO } }, (device) => {
    const [sent] = send(device, packetOf(short), { flags: CHECKSUM_VALID | COALESCED | PacketFlag.HASH, checksum: 3 });
    assert.equal(sent!.data, packetOf(short));
    assert.equal([sent!.header.flags, sent!.header.csum_start], [0, 0]);
  }));

test('D37: frames keep to the MTU, long packets do not, their segments do (§5.1.4.2)', () =>
  withDevice({ txOffloads: { flags: NEEDS_CHECKSUM | SEGMENT_TCP4 }, maxFrameBytes: 1518 }, (device) => {
    const { bytes, checksum } = begun(tcp4);
    assert.is(send(device, bytes, { flags: NEEDS_CHECKSUM, checksum }).length, 0);
    assert.is(device.sent.drops.tooLong, 1);
    assert.is(send(device, bytes, { flags: NEEDS_CHECKSUM | SEGMENT_TCP4, size: 1400, checksum }).length, 1);
    assert.is(
      send(device, begun(tcp6).bytes, { flags: NEEDS_CHECKSUM | SEGMENT_TCP6, size: 4000, checksum }).length,
      0,
    );
    assert.is(device.sent.drops.offload, 1);
  }));

test('a tag is put in before the others, and the checksum moves with what is behind it', () => {
  for (const flags of [0, NEEDS_CHECKSUM]) {
    withDevice({ txOffloads: { flags } }, (device) => {
      const { bytes, checksum } = begun(short);
      const tagged = { ...short, tags: 1 };
      const expected = flags === 0 ? packetOf(tagged) : begun(tagged).bytes;
      const [sent] = send(device, bytes, { flags: NEEDS_CHECKSUM | VLAN, checksum, tag: 7 });
      assert.equal(sent!.data, expected);
      if (flags !== 0) assert.is(sent!.header.csum_start, placesOf(tagged).transport);
    });
  }
});

test('flags that a packet is not are dropped and counted, and those behind it are sent', () =>
  withDevice({ txOffloads: { flags: NEEDS_CHECKSUM | ALL_GSO } }, (device) => {
    const { bytes, checksum } = begun(short);
    const wrong = [
      { flags: NEEDS_CHECKSUM, checksum: bytes.length },
      { flags: NEEDS_CHECKSUM, checksum: 0xffff_ffff },
      { flags: NEEDS_CHECKSUM | SEGMENT_TCP4, checksum, size: 0 },
      { flags: SEGMENT_TCP6, size: 100 },
      { flags: SEGMENT_UDP, size: 100 },
      { flags: PacketFlag.FRAGMENT_UDP | NEEDS_CHECKSUM, checksum, size: 100 },
    ];
    for (const options of wrong) assert.is(send(device, bytes, options).length, 0, JSON.stringify(options));
    assert.is(device.sent.drops.offload, wrong.length);
    assert.is(send(device, bytes, { flags: NEEDS_CHECKSUM, checksum }).length, 1);
  }));

test('a port without offloads looks at no flags: "flags MUST be zero" without CSUM, whatever the packet has (§5.1.6.2.1)', () =>
  withDevice({}, (device) => {
    const { bytes, checksum } = begun(short);
    const [sent] = send(device, bytes, { flags: NEEDS_CHECKSUM, checksum });
    assert.equal([sent!.header.flags, sent!.header.csum_start], [0, 0]);
    assert.equal(sent!.data, bytes);
  }));

test('segments wait for room: all of a packet goes, or none of it', () =>
  withDevice({ size: 8, poolSize: 64, txOffloads: { flags: 0 } }, (device, burst) => {
    for (let count = 0; count < 2; count++) {
      const handle = place(device.pool, packetOf(tcp4));
      device.pool.fields[handle * WORDS + FLAGS] = SEGMENT_TCP4 | (1000 << 16);
      burst.handles[burst.count++] = handle;
    }
    assert.is(device.tx.send(burst), 1);
    assert.is(burst.count, 1);
    const heads = device.txRing.take();
    assert.is(heads.length, 5);
    for (const head of heads) device.txRing.use(head, 0);
    device.txRing.publish();
    assert.is(device.tx.send(burst), 1);
    assert.is(device.txRing.take().length, 5);
  }));

interface Received {
  readonly flags?: number;
  readonly gso_type?: number;
  readonly hdr_len?: number;
  readonly gso_size?: number;
  readonly csum_start?: number;
  readonly csum_offset?: number;
  readonly hash_value?: number;
  readonly hash_report?: number;
}

/** Has the device give the driver one packet with this header; returns the packet's fields, or undefined where it was dropped. */
function receive(
  device: HandDevice,
  burst: Burst,
  bytes: Uint8Array,
  header: Received,
  headerBytes = 12,
): { flags: number; size: number; checksum: number; hash: number; data: Uint8Array; tag: number } | undefined {
  const ring = device.rxRing;
  const wire = new Uint8Array(headerBytes + bytes.length);
  const wide = new Uint8Array(virtioNetHdrHash.bytes);
  virtioNetHdrHash.write(new DataView(wide.buffer), { ...header, num_buffers: 0 });
  wire.set(wide.subarray(0, headerBytes));
  wire.set(bytes, headerBytes);
  let buffers = 0;
  let first = -1;
  for (let at = 0; at < wire.length; buffers++) {
    const [head] = ring.take(1);
    if (first < 0) first = head!;
    const buffer = ring.buffer(head!);
    const part = wire.subarray(at, at + buffer.length);
    buffer.set(part);
    ring.use(head!, part.length);
    at += part.length;
  }
  ring.buffer(first)[10] = buffers;
  ring.publish();
  assert.is(burst.count, 0);
  if (device.rx.receive(burst) === 0) return undefined;
  const { fields } = device.pool;
  const field = burst.handles[0]! * WORDS;
  const result = {
    flags: fields[field + FLAGS]! & 0xffff,
    size: fields[field + FLAGS]! >>> 16,
    checksum: fields[field + CHECKSUM]!,
    hash: fields[field + HASH]!,
    data: new PacketView(device.pool).move(burst.handles[0]!).copyPacket(),
    tag: fields[field + VLAN_AND_PORT]! & 0xffff,
  };
  burst.free();
  return result;
}

const rxAll = NEEDS_CHECKSUM | CHECKSUM_VALID | ALL_GSO | COALESCED;

test('D36: CHECKSUM_VALID by DATA_VALID, NEEDS_CHECKSUM by NEEDS_CSUM, neither by neither (§5.1.6.4.2)', () =>
  withDevice({ rxOffloads: { flags: rxAll } }, (device, burst) => {
    const bytes = packetOf(short);
    const { transport } = placesOf(short);
    assert.is(receive(device, burst, bytes, {})!.flags, 0);
    assert.is(receive(device, burst, bytes, { flags: NetHeaderFlag.DATA_VALID })!.flags, CHECKSUM_VALID);
    const needs = { flags: NetHeaderFlag.NEEDS_CSUM, csum_start: transport, csum_offset: 16 };
    const got = receive(device, burst, bytes, needs)!;
    assert.equal([got.flags, got.checksum], [NEEDS_CHECKSUM, transport | (16 << 16)]);
    assert.equal(got.data, bytes);
  }));

test('D36: "MUST ignore flag bits that it does not recognize"; hdr_len does not count (§5.1.6.4.2)', () =>
  withDevice({ rxOffloads: { flags: rxAll } }, (device, burst) => {
    const got = receive(device, burst, packetOf(short), { flags: 0xf8 | NetHeaderFlag.DATA_VALID, hdr_len: 0xffff });
    assert.is(got!.flags, CHECKSUM_VALID);
  }));

test('D36: csum_start and csum_offset mean nothing without NEEDS_CSUM, and numbers of segments with RSC_INFO (§5.1.6.4.2)', () =>
  withDevice({ rxOffloads: { flags: rxAll } }, (device, burst) => {
    const bytes = packetOf(tcp4);
    assert.is(receive(device, burst, bytes, { csum_start: 0xffff, csum_offset: 0xffff })!.flags, 0);
    const header = { flags: NetHeaderFlag.RSC_INFO | NetHeaderFlag.DATA_VALID, csum_start: 4, csum_offset: 2 };
    const got = receive(device, burst, bytes, { ...header, gso_type: GsoType.TCPV4, gso_size: 1448 })!;
    assert.equal([got.flags, got.checksum, got.size], [COALESCED | CHECKSUM_VALID | SEGMENT_TCP4, 4 | (2 << 16), 1448]);
  }));

test('long packets come whole with their segment size, over merged buffers up to 64 KiB', () =>
  withDevice({ rxOffloads: { flags: rxAll } }, (device, burst) => {
    for (const [shape, type, flag] of [
      [{ ...tcp4, payload: new Uint8Array(65_535 - 20 - 32).fill(3) }, GsoType.TCPV4, SEGMENT_TCP4],
      [{ ...tcp6, payload: new Uint8Array(30_000).fill(4) }, GsoType.TCPV6 | GsoFlag.ECN, SEGMENT_TCP6 | SEGMENT_ECN],
      [udp4, GsoType.UDP_L4, SEGMENT_UDP],
    ] as const) {
      const { bytes, checksum } = begun(shape);
      const place = { csum_start: checksum & 0xffff, csum_offset: checksum >>> 16 };
      const header = { flags: NetHeaderFlag.NEEDS_CSUM, gso_type: type, gso_size: 1448, ...place };
      const got = receive(device, burst, bytes, header)!;
      assert.equal([got.flags, got.size, got.checksum], [flag | NEEDS_CHECKSUM, 1448, checksum]);
      assert.equal(got.data, bytes);
    }
  }));

test('jumbo frames of 9728 bytes come over merged buffers (DPDK’s longest), without a flag', () =>
  withDevice({ rxOffloads: { flags: rxAll } }, (device, burst) => {
    const bytes = new Uint8Array(9728).fill(0x41);
    const got = receive(device, burst, bytes, {})!;
    assert.is(got.flags, 0);
    assert.equal(got.data, bytes);
  }));

test('what was not accepted does not count, as the device MUST NOT set it: without GUEST_CSUM there are no flags', () =>
  withDevice({ rxOffloads: { flags: 0 } }, (device, burst) => {
    const header = { flags: NetHeaderFlag.DATA_VALID | NetHeaderFlag.NEEDS_CSUM, csum_start: 0xffff };
    assert.is(receive(device, burst, packetOf(short), header)!.flags, 0);
  }));

test('without GUEST_CSUM checksums are looked at here, where the port is to know them', () =>
  withDevice({ rxOffloads: { flags: 0, verifiesChecksums: true } }, (device, burst) => {
    const bytes = packetOf(short);
    assert.is(receive(device, burst, bytes, {})!.flags, CHECKSUM_VALID);
    bytes[bytes.length - 1]! ^= 1;
    assert.is(receive(device, burst, bytes, {})!.flags, 0);
  }));

test('the header has 20 bytes with HASH_REPORT, and the hash is the packet’s; a report that is not known is none (§5.1.6.4.3)', () =>
  withDevice({ headerBytes: 20, rxOffloads: { flags: PacketFlag.HASH } }, (device, burst) => {
    const bytes = packetOf(short);
    const report = (hash_report: number) =>
      receive(device, burst, bytes, { hash_report, hash_value: 0x8765_4321 }, 20)!;
    const got = report(HashReport.TCPv4);
    assert.equal([got.flags, got.hash], [PacketFlag.HASH, 0x8765_4321]);
    assert.equal(got.data, bytes);
    for (const unknown of [HashReport.NONE, 10, 0xffff]) assert.is(report(unknown).flags, 0);
  }));

test('a tag is taken out, and the checksum moves with what is behind it', () =>
  withDevice({ rxOffloads: { flags: rxAll, stripsTags: true } }, (device, burst) => {
    const tagged = { ...short, tags: 1 };
    const { bytes } = begun(tagged);
    const header = { flags: NetHeaderFlag.NEEDS_CSUM, csum_start: placesOf(tagged).transport, csum_offset: 16 };
    const got = receive(device, burst, bytes, header)!;
    assert.equal(got.data, begun(short).bytes);
    assert.equal(
      [got.flags, got.tag, got.checksum],
      [NEEDS_CHECKSUM | VLAN, 7, placesOf(short).transport | (16 << 16)],
    );
    assert.is(receive(device, burst, packetOf(short), {})!.flags, 0);
  }));

test.run();
