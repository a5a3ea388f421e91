/** 802.1Q tags of packets, put in and taken out in their buffers: virtio-net devices do neither. */

import { PacketField, PacketFlag } from '../memory/packet-fields.js';
import type { PacketPool } from '../memory/packet-pool.js';
import { ETHERNET_HEADER_BYTES } from '../spec/ethernet.js';
import { EthernetHeader, EtherType, VLAN_TAG_BYTES } from '../spec/internet.js';

const { DATA_OFFSET, SEGMENT_LENGTH, PACKET_LENGTH, FLAGS, VLAN_AND_PORT, CHECKSUM, WORDS_SHIFT } = PacketField;
const { VLAN, NEEDS_CHECKSUM } = PacketFlag;
/** Both addresses: what stands before a tag. */
const ADDRESSES_BYTES = EthernetHeader.TYPE;
const LOW_HALF = 0xffff;

/**
 * Puts a tag into the packet, before all others.
 *
 * Returns false, and changes nothing, where less than 4 bytes are free between `room` and the data, the first segment is
 * shorter than an Ethernet header, or csum_start has no room for its place.
 *
 * @param room bytes at the buffer's beginning that are kept for others
 */
export function addTag(pool: PacketPool, handle: number, tag: number, room: number): boolean {
  const { fields, bytes, offset, bufferBytes } = pool;
  const field = handle << WORDS_SHIFT;
  const dataOffset = fields[field + DATA_OFFSET]! - VLAN_TAG_BYTES;
  if (dataOffset < room || fields[field + SEGMENT_LENGTH]! < ETHERNET_HEADER_BYTES) return false;
  const isOpen = (fields[field + FLAGS]! & NEEDS_CHECKSUM) !== 0;
  if (isOpen && (fields[field + CHECKSUM]! & LOW_HALF) + VLAN_TAG_BYTES > LOW_HALF) return false;
  const at = offset + handle * bufferBytes + dataOffset;
  moveAddresses(pool, at + VLAN_TAG_BYTES, at);
  bytes[at + ADDRESSES_BYTES] = EtherType.VLAN >>> 8;
  bytes[at + ADDRESSES_BYTES + 1] = EtherType.VLAN & 0xff;
  bytes[at + ADDRESSES_BYTES + 2] = tag >>> 8;
  bytes[at + ADDRESSES_BYTES + 3] = tag;
  moveStart(fields, field, -VLAN_TAG_BYTES);
  return true;
}

/** Takes the first tag out of the packet, which the caller knows to be there in the first segment. */
export function removeTag(pool: PacketPool, handle: number): void {
  const { fields, offset, bufferBytes } = pool;
  const field = handle << WORDS_SHIFT;
  const at = offset + handle * bufferBytes + fields[field + DATA_OFFSET]!;
  moveAddresses(pool, at, at + VLAN_TAG_BYTES);
  moveStart(fields, field, VLAN_TAG_BYTES);
}

/** As `addTag` with the tag that `VLAN_AND_PORT` holds; clears the VLAN flag. */
export function insertTag(pool: PacketPool, handle: number, room: number): boolean {
  const { fields } = pool;
  const field = handle << WORDS_SHIFT;
  if (!addTag(pool, handle, fields[field + VLAN_AND_PORT]! & LOW_HALF, room)) return false;
  fields[field + FLAGS]! &= ~VLAN;
  return true;
}

/** Takes the first tag (IEEE 802.1Q) out of the packet into `VLAN_AND_PORT`, and sets its VLAN flag; false where there is none. */
export function stripTag(pool: PacketPool, handle: number): boolean {
  const { fields, bytes, offset, bufferBytes } = pool;
  const field = handle << WORDS_SHIFT;
  const at = offset + handle * bufferBytes + fields[field + DATA_OFFSET]! + ADDRESSES_BYTES;
  const type = (bytes[at]! << 8) | bytes[at + 1]!;
  if (type !== EtherType.VLAN || fields[field + SEGMENT_LENGTH]! < ETHERNET_HEADER_BYTES + VLAN_TAG_BYTES) return false;
  const tag = (bytes[at + 2]! << 8) | bytes[at + 3]!;
  fields[field + VLAN_AND_PORT] = (fields[field + VLAN_AND_PORT]! & ~LOW_HALF) | tag;
  fields[field + FLAGS]! |= VLAN;
  removeTag(pool, handle);
  return true;
}

function moveAddresses({ bytes, words }: PacketPool, from: number, to: number): void {
  if ((from & 3) !== 0) {
    bytes.copyWithin(to, from, from + ADDRESSES_BYTES);
    return;
  }
  // Where a packet usually begins; read before they are written, for the places overlap.
  const source = from >>> 2;
  const target = to >>> 2;
  const first = words[source]!;
  const second = words[source + 1]!;
  const third = words[source + 2]!;
  words[target] = first;
  words[target + 1] = second;
  words[target + 2] = third;
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
