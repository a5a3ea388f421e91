/** Adds and takes away the 802.1Q tag of a packet, in its buffer. */

import { PacketField, PacketFlag } from '../../memory/packet-fields.js';
import type { PacketPool } from '../../memory/packet-pool.js';
import { EtherType, VLAN_TAG_BYTES } from '../../spec/internet.js';
import { NET_HEADER_BYTES_MAX } from '../../spec/net-header.js';

const { DATA_OFFSET, SEGMENT_LENGTH, PACKET_LENGTH, CHECKSUM, FLAGS, WORDS_SHIFT } = PacketField;
const { NEEDS_CHECKSUM } = PacketFlag;

/** Numbers of VLANs are 1 to this; 0 marks a priority tag, 4095 is reserved (IEEE 802.1Q table 9-2). */
export const VLAN_ID_MAX = 4094;

/** Both addresses: what stands before a tag. */
const ADDRESSES_BYTES = 12;

/**
 * Inserts a tag behind the addresses; false where the buffer has no room before its data, or csum_start none for its place.
 * Data begins at a multiple of 4.
 */
export function addVlanTag(pool: PacketPool, handle: number, vlan: number): boolean {
  const { fields, words, bytes } = pool;
  const field = handle << WORDS_SHIFT;
  const dataOffset = fields[field + DATA_OFFSET]!;
  if (dataOffset < NET_HEADER_BYTES_MAX + VLAN_TAG_BYTES || !mayMove(fields, field)) return false;
  const at = pool.offset + handle * pool.bufferBytes + dataOffset;
  const word = at >>> 2;
  for (let index = 0; index < ADDRESSES_BYTES / 4; index++) words[word - 1 + index] = words[word + index]!;
  const tag = at - VLAN_TAG_BYTES + ADDRESSES_BYTES;
  bytes[tag] = EtherType.VLAN >>> 8;
  bytes[tag + 1] = EtherType.VLAN & 0xff;
  bytes[tag + 2] = vlan >>> 8;
  bytes[tag + 3] = vlan & 0xff;
  move(fields, field, VLAN_TAG_BYTES);
  return true;
}

/** Takes the tag away; the caller knows that the first segment has one, and that its data begins at a multiple of 4. */
export function stripVlanTag(pool: PacketPool, handle: number): void {
  const { fields, words } = pool;
  const field = handle << WORDS_SHIFT;
  const word = (pool.offset + handle * pool.bufferBytes + fields[field + DATA_OFFSET]!) >>> 2;
  for (let index = ADDRESSES_BYTES / 4; index > 0; index--) words[word + index] = words[word + index - 1]!;
  move(fields, field, -VLAN_TAG_BYTES);
}

/** The packet begins `bytes` earlier: so much longer it is, and so much further away its checksum. */
function move(fields: Uint32Array, field: number, bytes: number): void {
  fields[field + DATA_OFFSET]! -= bytes;
  fields[field + SEGMENT_LENGTH]! += bytes;
  fields[field + PACKET_LENGTH]! += bytes;
  // csum_start is the low half, and behind the tag (`NetHeaderReader`).
  if ((fields[field + FLAGS]! & NEEDS_CHECKSUM) !== 0) fields[field + CHECKSUM]! += bytes;
}

/** Whether csum_start has room for a tag more. */
function mayMove(fields: Uint32Array, field: number): boolean {
  const isOpen = (fields[field + FLAGS]! & NEEDS_CHECKSUM) !== 0;
  return !isOpen || (fields[field + CHECKSUM]! & 0xffff) + VLAN_TAG_BYTES <= 0xffff;
}
