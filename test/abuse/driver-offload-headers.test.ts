/** Headers of a hostile device where the driver believes some of them (abuse D29): garbage drops a packet, and reaches nothing else. */

import fc from 'fast-check';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { Burst } from '../../driver/memory/burst.js';
import { PacketBytes } from '../../driver/memory/packet-bytes.js';
import { OVERSIZE_FLAGS, PacketField, PacketFlag } from '../../driver/memory/packet-fields.js';
import { completeChecksum } from '../../driver/offload/checksum.js';
import { MAX_SEGMENTS, Segmenter } from '../../driver/offload/segment.js';
import { GsoFlag, GsoType, NetHeaderFlag, virtioNetHdr } from '../../driver/spec/net-header.js';
import { HandDevice } from '../support/hand-device.js';
import { packetOf } from '../support/offload-packets.js';

const test = suite('offloads, hostile device');
const { FLAGS, CHECKSUM, WORDS } = PacketField;
const { NEEDS_CHECKSUM, CHECKSUM_VALID, SEGMENT_TCP4, SEGMENT_TCP6, SEGMENT_UDP, SEGMENT_ECN, COALESCED } = PacketFlag;
const ALL = NEEDS_CHECKSUM | CHECKSUM_VALID | SEGMENT_TCP4 | SEGMENT_TCP6 | SEGMENT_UDP | SEGMENT_ECN | COALESCED;
const BYTES = packetOf({ version: 4, protocol: 'tcp', payload: new Uint8Array(100) });
const { NEEDS_CSUM, DATA_VALID, RSC_INFO } = NetHeaderFlag;

type Header = Parameters<typeof virtioNetHdr.write>[1];

/** Runs a body with a device by hand; at its end every buffer is back. */
function withDevice(flags: number, body: (device: HandDevice, give: (header: Header) => Burst) => void): void {
  using device = new HandDevice({ size: 8, poolSize: 64, bufferBytes: 512, rxOffloads: { flags } });
  const burst = new Burst(device.pool, 8);
  const give = (header: Header): Burst => {
    burst.free();
    const [head] = device.rxRing.take(1);
    const buffer = device.rxRing.buffer(head!);
    virtioNetHdr.write(new DataView(buffer.buffer, buffer.byteOffset), { ...header, num_buffers: 1 });
    buffer.set(BYTES, virtioNetHdr.bytes);
    device.rxRing.use(head!, virtioNetHdr.bytes + BYTES.length);
    device.rxRing.publish();
    device.rx.receive(burst);
    return burst;
  };
  body(device, give);
  burst.free();
  device.stop();
  assert.is(device.pool.available, device.pool.size, 'every buffer is back');
}

const zero = { flags: 0, gso_type: 0, hdr_len: 0, gso_size: 0, csum_start: 0, csum_offset: 0 };

test('D29: a checksum outside the packet, by one byte or by 128 KiB, drops it, counted', () =>
  withDevice(ALL, (device, give) => {
    const outside = [
      [BYTES.length - 1, 0],
      [BYTES.length - 17, 16],
      [0xffff, 0xffff],
      [0, BYTES.length - 1],
      [0xffff, 0],
    ] as const;
    for (const [csum_start, csum_offset] of outside) {
      assert.is(give({ ...zero, flags: NEEDS_CSUM, csum_start, csum_offset }).count, 0, `${csum_start} ${csum_offset}`);
    }
    assert.is(device.received.drops.offload, outside.length);
    assert.is(device.received.packets, 0);
    assert.is(device.received.bytes, 0);
    assert.is(give({ ...zero, flags: NEEDS_CSUM, csum_start: BYTES.length - 18, csum_offset: 16 }).count, 1);
  }));

test('D29: every gso_type that is not known or not accepted drops the packet; every known one needs size and checksum', () => {
  const known = new Map<number, number>([
    [GsoType.TCPV4, SEGMENT_TCP4],
    [GsoType.TCPV6, SEGMENT_TCP6],
    [GsoType.UDP_L4, SEGMENT_UDP],
  ]);
  const sound = { ...zero, flags: NEEDS_CSUM, csum_start: 34, csum_offset: 16, gso_size: 100 };
  for (const accepted of [ALL, NEEDS_CHECKSUM | SEGMENT_TCP4, NEEDS_CHECKSUM]) {
    withDevice(accepted, (device, give) => {
      for (let gso_type = 0; gso_type < 256; gso_type++) {
        const kind = known.get(gso_type & ~GsoFlag.ECN) ?? 0;
        const isNone = (gso_type & ~GsoFlag.ECN) === GsoType.NONE;
        const isTaken = isNone || (kind & accepted) !== 0;
        const burst = give({ ...sound, gso_type });
        assert.is(burst.count, isTaken ? 1 : 0, `gso_type ${gso_type}`);
        if (isTaken) {
          const flags = device.pool.fields[burst.handles[0]! * WORDS + FLAGS]!;
          assert.is(flags & OVERSIZE_FLAGS, kind);
          assert.is(flags >>> 16, isNone ? 0 : 100);
        }
        if (kind === 0) continue;
        assert.is(give({ ...sound, gso_type, gso_size: 0 }).count, 0);
        assert.is(give({ ...sound, gso_type, flags: 0 }).count, 0);
        assert.is(give({ ...sound, gso_type, flags: DATA_VALID }).count, 0);
      }
    });
  }
});

test('D29: whatever the header says, what comes out can be completed and cut within its bounds', () =>
  withDevice(ALL, (device, give) => {
    const segmenter = new Segmenter(device.pool);
    const packet = new PacketBytes(device.pool);
    const out = new Uint32Array(MAX_SEGMENTS);
    const u16 = fc.oneof(fc.nat(0xffff), fc.nat(BYTES.length + 2), fc.constantFrom(0, 1, 0xffff));
    fc.assert(
      fc.property(
        fc.record({
          flags: fc.oneof(fc.nat(255), fc.constantFrom(NEEDS_CSUM, RSC_INFO, NEEDS_CSUM | RSC_INFO, DATA_VALID)),
          gso_type: fc.oneof(fc.nat(255), fc.constantFrom(...Object.values(GsoType))),
          hdr_len: u16,
          gso_size: u16,
          csum_start: u16,
          csum_offset: u16,
        }),
        (header) => {
          const burst = give(header);
          if (burst.count === 0) return;
          const handle = burst.handles[0]!;
          const flags = device.pool.fields[handle * WORDS + FLAGS]!;
          assert.is(flags & 0xffff & ~ALL, 0, 'only what was accepted');
          if ((flags & OVERSIZE_FLAGS) === 0) assert.is(flags >>> 16, 0);
          else assert.ok(flags >>> 16 > 0 && (flags & (NEEDS_CHECKSUM | COALESCED)) !== 0);
          const count = (flags & OVERSIZE_FLAGS) === 0 ? 0 : segmenter.plan(handle);
          if (count > 0 && segmenter.cut(out, 0)) device.pool.free(out, 0, count);
          if ((flags & NEEDS_CHECKSUM) === 0) return;
          const place = device.pool.fields[handle * WORDS + CHECKSUM]!;
          assert.is(completeChecksum(packet.move(handle), place & 0xffff, place >>> 16), true);
        },
      ),
      { numRuns: 3000 },
    );
  }));

test('D31: a header that is rewritten after it was read changes nothing of the packet', () =>
  withDevice(ALL, (device, give) => {
    const burst = give({ ...zero, flags: NEEDS_CSUM, csum_start: 34, csum_offset: 16, gso_type: 1, gso_size: 500 });
    const handle = burst.handles[0]!;
    const before = [...device.pool.fields.subarray(handle * WORDS, handle * WORDS + WORDS)];
    const at = device.pool.offset + handle * device.pool.bufferBytes + device.pool.headroom - virtioNetHdr.bytes;
    device.pool.bytes.fill(0xff, at, at + virtioNetHdr.bytes);
    assert.equal([...device.pool.fields.subarray(handle * WORDS, handle * WORDS + WORDS)], before);
  }));

test.run();
