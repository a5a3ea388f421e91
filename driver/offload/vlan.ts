/** VLAN tags in software: virtio-net devices neither insert nor strip them. */

import { PacketField, PacketFlag } from '../memory/packet-fields.js';
import type { PacketPool } from '../memory/packet-pool.js';
import { ETHERNET_HEADER_BYTES } from '../spec/ethernet.js';
import { EthernetHeader, EtherType, VLAN_TAG_BYTES } from '../spec/internet.js';

const { DATA_OFFSET, SEGMENT_LENGTH, PACKET_LENGTH, FLAGS, VLAN_AND_PORT, CHECKSUM, WORDS_SHIFT } = PacketField;
const { VLAN, NEEDS_CHECKSUM } = PacketFlag;
const ADDRESSES_BYTES = EthernetHeader.TYPE;
const LOW_HALF = 0xffff;

/**
 * Puts the tag that `VLAN_AND_PORT` holds into the packet, before all others, and clears its VLAN flag.
 *
 * Returns false, and changes nothing, where less than 4 bytes are free between `room` and the data, or the first segment
 * is shorter than an Ethernet header.
 *
 * @param room bytes at the buffer's beginning that are kept for others
 */
export function insertTag({ fields, bytes, offset, bufferBytes }: PacketPool, handle: number, room: number): boolean {
  const field = handle << WORDS_SHIFT;
  const dataOffset = fields[field + DATA_OFFSET]! - VLAN_TAG_BYTES;
  if (dataOffset < room || fields[field + SEGMENT_LENGTH]! < ETHERNET_HEADER_BYTES) return false;
  const at = offset + handle * bufferBytes + dataOffset;
  bytes.copyWithin(at, at + VLAN_TAG_BYTES, at + VLAN_TAG_BYTES + ADDRESSES_BYTES);
  const tag = fields[field + VLAN_AND_PORT]!;
  bytes[at + ADDRESSES_BYTES] = EtherType.VLAN >>> 8;
  bytes[at + ADDRESSES_BYTES + 1] = EtherType.VLAN & 0xff;
  bytes[at + ADDRESSES_BYTES + 2] = tag >>> 8;
  bytes[at + ADDRESSES_BYTES + 3] = tag;
  fields[field + FLAGS]! &= ~VLAN;
  moveStart(fields, field, -VLAN_TAG_BYTES);
  return true;
}

/** Takes the first tag (IEEE 802.1Q) out of the packet into `VLAN_AND_PORT`, and sets its VLAN flag; false where there is none. */
export function stripTag({ fields, bytes, offset, bufferBytes }: PacketPool, handle: number): boolean {
  const field = handle << WORDS_SHIFT;
  const at = offset + handle * bufferBytes + fields[field + DATA_OFFSET]!;
  const type = (bytes[at + ADDRESSES_BYTES]! << 8) | bytes[at + ADDRESSES_BYTES + 1]!;
  if (type !== EtherType.VLAN || fields[field + SEGMENT_LENGTH]! < ETHERNET_HEADER_BYTES + VLAN_TAG_BYTES) return false;
  const tag = (bytes[at + ADDRESSES_BYTES + 2]! << 8) | bytes[at + ADDRESSES_BYTES + 3]!;
  bytes.copyWithin(at + VLAN_TAG_BYTES, at, at + ADDRESSES_BYTES);
  fields[field + VLAN_AND_PORT] = (fields[field + VLAN_AND_PORT]! & ~LOW_HALF) | tag;
  fields[field + FLAGS]! |= VLAN;
  moveStart(fields, field, VLAN_TAG_BYTES);
  return true;
}

/** Moves the packet's first byte by so many bytes; its checksum stays where it is. */
function moveStart(fields: Uint32Array, field: number, by: number): void {
  fields[field + DATA_OFFSET]! += by;
  fields[field + SEGMENT_LENGTH]! -= by;
  fields[field + PACKET_LENGTH]! -= by;
  if ((fields[field + FLAGS]! & NEEDS_CHECKSUM) === 0) return;
  const place = fields[field + CHECKSUM]!;
  fields[field + CHECKSUM] = (place & ~LOW_HALF) | ((place - by) & LOW_HALF);
}
