/** TCP and UDP packets as plain bytes, and what is right of them, by the slowest and plainest code: a judge for what the library makes. */

import { PacketField, PacketFlag } from '../../driver/memory/packet-fields.js';
import type { PacketPool } from '../../driver/memory/packet-pool.js';
import type { Port } from '../../driver/net/port.js';

const { DATA_OFFSET, SEGMENT_LENGTH, NEXT, PACKET_LENGTH, FLAGS, CHECKSUM, VLAN_AND_PORT, WORDS } = PacketField;

export interface PacketShape {
  readonly version: 4 | 6;
  readonly protocol: 'tcp' | 'udp';
  readonly payload: Uint8Array;
  /** VLAN tags, 0 to 2. */
  readonly tags?: number;
  /** 32-bit words of IPv4 options, or IPv6 extension headers of 8 bytes. */
  readonly options?: number;
  /** 32-bit words of TCP options. */
  readonly tcpOptions?: number;
  /** TCP flags. */
  readonly flags?: number;
  readonly sequence?: number;
  readonly identification?: number;
}

/** Where headers begin and end in a packet that `packetOf` made. */
export interface Places {
  readonly network: number;
  readonly transport: number;
  readonly payload: number;
}

const ADDRESSES = { 4: 4, 6: 16 } as const;

export function placesOf({ version, protocol, tags = 0, options = 0, tcpOptions = 0 }: PacketShape): Places {
  const network = 14 + 4 * tags;
  const transport = network + (version === 4 ? 20 + 4 * options : 40 + 8 * options);
  return { network, transport, payload: transport + (protocol === 'tcp' ? 20 + 4 * tcpOptions : 8) };
}

/** A packet with right checksums. */
export function packetOf(shape: PacketShape): Uint8Array {
  const { version, protocol, payload, tags = 0, options = 0, tcpOptions = 0 } = shape;
  const places = placesOf(shape);
  const bytes = new Uint8Array(places.payload + payload.length);
  const view = new DataView(bytes.buffer);
  bytes.set([2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2]);
  for (let tag = 0; tag < tags; tag++)
    view.setUint32(12 + 4 * tag, (tag === 0 && tags === 2 ? 0x88a8_0000 : 0x8100_0000) + 7 + tag);
  view.setUint16(places.network - 2, version === 4 ? 0x0800 : 0x86dd);
  const number = protocol === 'tcp' ? 6 : 17;
  if (version === 4) {
    view.setUint8(places.network, 0x40 | (5 + options));
    view.setUint16(places.network + 2, bytes.length - places.network);
    view.setUint16(places.network + 4, shape.identification ?? 0x1234);
    view.setUint8(places.network + 8, 64);
    view.setUint8(places.network + 9, number);
    bytes.set([10, 1, 2, 3, 10, 4, 5, 6], places.network + 12);
    // No-operation options.
    bytes.fill(1, places.network + 20, places.transport);
    view.setUint16(places.network + 10, checksum([bytes.subarray(places.network, places.transport)]));
  } else {
    view.setUint8(places.network, 0x60);
    view.setUint16(places.network + 4, bytes.length - places.network - 40);
    view.setUint8(places.network + 6, options === 0 ? number : 60);
    view.setUint8(places.network + 7, 64);
    bytes.set([0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1], places.network + 8);
    bytes.set([0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2], places.network + 24);
    for (let header = 0; header < options; header++) {
      // Destination options of one PadN.
      bytes.set([header + 1 < options ? 60 : number, 0, 1, 4, 0, 0, 0, 0], places.network + 40 + 8 * header);
    }
  }
  view.setUint16(places.transport, 4000);
  view.setUint16(places.transport + 2, 5000);
  if (protocol === 'tcp') {
    view.setUint32(places.transport + 4, shape.sequence ?? 0x0102_0304);
    view.setUint32(places.transport + 8, 0x0a0b_0c0d);
    view.setUint8(places.transport + 12, (5 + tcpOptions) << 4);
    view.setUint8(places.transport + 13, shape.flags ?? 0x10);
    view.setUint16(places.transport + 14, 0xffff);
    bytes.fill(1, places.transport + 20, places.payload);
  } else {
    view.setUint16(places.transport + 4, bytes.length - places.transport);
  }
  bytes.set(payload, places.payload);
  view.setUint16(places.transport + (protocol === 'tcp' ? 16 : 6), transportChecksum(bytes, shape));
  return bytes;
}

/** What the checksum field of TCP or UDP must hold, whatever it holds now; `pseudoOnly` for the sum of the pseudo header. */
export function transportChecksum(packet: Uint8Array, shape: PacketShape, pseudoOnly = false): number {
  const { network, transport } = placesOf(shape);
  const { version, protocol } = shape;
  const copy = packet.slice(transport);
  copy.set([0, 0], protocol === 'tcp' ? 16 : 6);
  const at = network + (version === 4 ? 12 : 8);
  const pseudo = new Uint8Array(2 * ADDRESSES[version] + 8);
  pseudo.set(packet.subarray(at, at + 2 * ADDRESSES[version]));
  const view = new DataView(pseudo.buffer);
  view.setUint32(pseudo.length - 8, copy.length);
  view.setUint32(pseudo.length - 4, protocol === 'tcp' ? 6 : 17);
  if (pseudoOnly) return ~checksum([pseudo]) & 0xffff;
  const sum = checksum([pseudo, copy]);
  return sum === 0 && protocol === 'udp' ? 0xffff : sum;
}

/** RFC 1071 word for word, with numbers of any size; every part but the last has an even length. */
export function checksum(parts: readonly Uint8Array[]): number {
  let sum = 0n;
  for (const part of parts) {
    for (const [index, byte] of part.entries()) sum += BigInt(byte) << (index % 2 === 0 ? 8n : 0n);
  }
  while (sum >> 16n !== 0n) sum = (sum & 0xffffn) + (sum >> 16n);
  return Number(~sum & 0xffffn);
}

/** Puts bytes into a packet of the pool, in pieces of these lengths and a last one with the rest; returns its handle. */
export function place(
  pool: PacketPool,
  bytes: Uint8Array,
  pieces: readonly number[] = [],
  dataOffset = pool.headroom,
): number {
  const parts: Uint8Array[] = [];
  let at = 0;
  for (const piece of pieces) {
    parts.push(bytes.subarray(at, at + piece));
    at = Math.min(bytes.length, at + piece);
  }
  const most = pool.bufferBytes - dataOffset;
  for (; at < bytes.length || parts.length === 0; at += most) parts.push(bytes.subarray(at, at + most));
  const handles = new Uint32Array(parts.length);
  for (let index = 0; index < parts.length; index++) {
    if (!pool.allocate(handles, index, 1)) throw new Error('the pool is empty');
  }
  for (const [index, part] of parts.entries()) {
    const field = handles[index]! * WORDS;
    pool.fields[field + DATA_OFFSET] = dataOffset;
    pool.fields[field + SEGMENT_LENGTH] = part.length;
    pool.fields[field + NEXT] = index + 1 < parts.length ? handles[index + 1]! + 1 : 0;
    pool.bytes.set(part, pool.offset + handles[index]! * pool.bufferBytes + dataOffset);
  }
  pool.fields[handles[0]! * WORDS + PACKET_LENGTH] = bytes.length;
  return handles[0]!;
}

/** Sends a packet with its checksum left to do, and these flags beside; `tag` goes with VLAN. Returns whether it was sent. */
export function sendUnfinished(port: Port, shape: PacketShape, flags = 0, tag = 0): boolean {
  const packet = packetOf(shape);
  const { transport } = placesOf(shape);
  const offset = shape.protocol === 'tcp' ? 16 : 6;
  new DataView(packet.buffer).setUint16(transport + offset, transportChecksum(packet, shape, true));
  const { pool } = port;
  const handle = place(pool, packet);
  pool.fields[handle * WORDS + FLAGS] = PacketFlag.NEEDS_CHECKSUM | flags;
  pool.fields[handle * WORDS + CHECKSUM] = transport | (offset << 16);
  pool.fields[handle * WORDS + VLAN_AND_PORT] = tag;
  const burst = port.burst(1);
  burst.handles[burst.count++] = handle;
  const isSent = port.txQueue(0).send(burst) === 1;
  burst.free();
  return isSent;
}
