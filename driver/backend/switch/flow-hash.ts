/** Tells the flows of packets apart, so that each keeps to one queue pair of its receiver. */

import { PacketField } from '../../memory/packet-fields.js';
import type { PacketPool } from '../../memory/packet-pool.js';
import { EtherType, VLAN_TAG_BYTES } from '../../spec/internet.js';

const { DATA_OFFSET, SEGMENT_LENGTH, WORDS_SHIFT } = PacketField;

const ETHERTYPE_AT = 12;
const IPV4 = 0x0800;
const IPV6 = 0x86dd;
const TCP = 6;
const UDP = 17;
const IPV4_HEADER_BYTES = 20;
const IPV6_HEADER_BYTES = 40;
/** The longest way to the ports: tagged, IPv4 with options. Nothing behind is looked at. */
export const FLOW_BYTES = 96;
/** More fragments, or not the first: the ports are not in all of them. */
const FRAGMENT_BITS = 0x3fff;

/** A hash over Ethernet and IP addresses and ports, as far as the first segment has them; the same for all of a flow. */
export function flowHash(pool: PacketPool, handle: number): number {
  const { fields, bytes } = pool;
  const field = handle << WORDS_SHIFT;
  const start = pool.offset + handle * pool.bufferBytes + fields[field + DATA_OFFSET]!;
  const end = start + fields[field + SEGMENT_LENGTH]!;
  let hash = mix(bytes, 0, start, start + ETHERTYPE_AT);
  let at = start + ETHERTYPE_AT;
  if (u16(bytes, at) === EtherType.VLAN && at + VLAN_TAG_BYTES + 2 <= end) at += VLAN_TAG_BYTES;
  const type = u16(bytes, at);
  at += 2;
  let ports = 0;
  if (type === IPV4 && at + IPV4_HEADER_BYTES <= end) {
    hash = mix(bytes, hash, at + 12, at + 20);
    if ((u16(bytes, at + 6) & FRAGMENT_BITS) === 0 && hasPorts(bytes[at + 9]!)) ports = at + (bytes[at]! & 0x0f) * 4;
  } else if (type === IPV6 && at + IPV6_HEADER_BYTES <= end) {
    hash = mix(bytes, hash, at + 8, at + 40);
    if (hasPorts(bytes[at + 6]!)) ports = at + IPV6_HEADER_BYTES;
  }
  if (ports !== 0 && ports + 4 <= end) hash = mix(bytes, hash, ports, ports + 4);
  return (hash ^ (hash >>> 15)) >>> 0;
}

const hasPorts = (protocol: number): boolean => protocol === TCP || protocol === UDP;

const u16 = (bytes: Uint8Array, at: number): number => (bytes[at]! << 8) | bytes[at + 1]!;

function mix(bytes: Uint8Array, seed: number, from: number, to: number): number {
  let hash = seed;
  for (let at = from; at < to; at += 2) hash = Math.imul(hash ^ u16(bytes, at), 0x9e37_79b1) ^ (hash >>> 16);
  return hash;
}
