/** The virtio-net header that a tap has before each packet, to and from the fields of the packet. */

import { PacketField, PacketFlag } from '../../memory/packet-fields.js';
import { writePlainHeader } from '../../memory/packet-header.js';
import type { PacketPool } from '../../memory/packet-pool.js';
import { GsoFlag, GsoType, NetHeaderFlag, virtioNetHdr } from '../../spec/net-header.js';

const { DATA_OFFSET, FLAGS, CHECKSUM, PACKET_LENGTH, WORDS_SHIFT } = PacketField;
const { NEEDS_CHECKSUM, CHECKSUM_VALID, SEGMENT_TCP4, SEGMENT_TCP6, SEGMENT_ECN } = PacketFlag;
const { fields: at } = virtioNetHdr;
const HEADER_BYTES = virtioNetHdr.bytes;
const FLAG_BITS = 0xffff;

/** Sets the packet's flags by the header before its data; false where the header asks for what no packet has. */
export function readTapHeader(pool: PacketPool, handle: number): boolean {
  const { fields, bytes } = pool;
  const field = handle << WORDS_SHIFT;
  const start = pool.offset + handle * pool.bufferBytes + fields[field + DATA_OFFSET]! - HEADER_BYTES;
  const headerFlags = bytes[start + at.flags.offset]!;
  const gso = bytes[start + at.gso_type.offset]!;
  const checksumStart = u16(bytes, start + at.csum_start.offset);
  const checksumOffset = u16(bytes, start + at.csum_offset.offset);
  let flags = 0;
  if ((headerFlags & NetHeaderFlag.NEEDS_CSUM) !== 0) {
    if (checksumStart + checksumOffset + 2 > fields[field + PACKET_LENGTH]!) return false;
    flags |= NEEDS_CHECKSUM;
    fields[field + CHECKSUM] = checksumStart | (checksumOffset << 16);
  } else if ((headerFlags & NetHeaderFlag.DATA_VALID) !== 0) {
    flags |= CHECKSUM_VALID;
  }
  const type = gso & ~GsoFlag.ECN;
  if (type === GsoType.TCPV4) flags |= SEGMENT_TCP4;
  else if (type === GsoType.TCPV6) flags |= SEGMENT_TCP6;
  else if (type !== GsoType.NONE) return false;
  if (type !== GsoType.NONE) {
    if ((gso & GsoFlag.ECN) !== 0) flags |= SEGMENT_ECN;
    flags |= u16(bytes, start + at.gso_size.offset) << 16;
  }
  fields[field + FLAGS] = flags >>> 0;
  return true;
}

/** Writes the header of a packet at `start`, by its flags. */
export function writeTapHeader(pool: PacketPool, handle: number, start: number): void {
  const { fields, bytes } = pool;
  const field = handle << WORDS_SHIFT;
  const flags = fields[field + FLAGS]!;
  writePlainHeader(pool, start, HEADER_BYTES, 0);
  if ((flags & (NEEDS_CHECKSUM | CHECKSUM_VALID | SEGMENT_TCP4 | SEGMENT_TCP6)) === 0) return;
  if ((flags & NEEDS_CHECKSUM) !== 0) {
    const checksum = fields[field + CHECKSUM]!;
    bytes[start + at.flags.offset] = NetHeaderFlag.NEEDS_CSUM;
    setU16(bytes, start + at.csum_start.offset, checksum & FLAG_BITS);
    setU16(bytes, start + at.csum_offset.offset, checksum >>> 16);
  } else if ((flags & CHECKSUM_VALID) !== 0) {
    bytes[start + at.flags.offset] = NetHeaderFlag.DATA_VALID;
  }
  if ((flags & (SEGMENT_TCP4 | SEGMENT_TCP6)) === 0) return;
  const type = (flags & SEGMENT_TCP4) !== 0 ? GsoType.TCPV4 : GsoType.TCPV6;
  bytes[start + at.gso_type.offset] = type | ((flags & SEGMENT_ECN) !== 0 ? GsoFlag.ECN : 0);
  setU16(bytes, start + at.gso_size.offset, flags >>> 16);
}

const u16 = (bytes: Uint8Array, offset: number): number => bytes[offset]! | (bytes[offset + 1]! << 8);

function setU16(bytes: Uint8Array, offset: number, value: number): void {
  bytes[offset] = value & 0xff;
  bytes[offset + 1] = value >>> 8;
}
