/** Joins TCP segments that follow on one another into one packet: what `Segmenter` cuts, and RSC_EXT reports (virtio 1.2 §5.1.6.4). */

import type { Burst } from '../memory/burst.js';
import { PacketBytes } from '../memory/packet-bytes.js';
import { PacketField, PacketFlag } from '../memory/packet-fields.js';
import type { PacketPool } from '../memory/packet-pool.js';
import { IpProtocol, Ipv4Header, Ipv6Header, TcpFlag, TcpHeader } from '../spec/internet.js';
import { ChecksumVerdict, completeChecksum, pseudoHeaderSum, verifyChecksums, writeIpv4Checksum } from './checksum.js';
import { PacketLayers } from './packet-layers.js';

const { DATA_OFFSET, SEGMENT_LENGTH, NEXT, PACKET_LENGTH, FLAGS, VLAN_AND_PORT, CHECKSUM, WORDS_SHIFT } = PacketField;
const { CHECKSUM_VALID, SEGMENT_TCP4, SEGMENT_TCP6, VLAN, HASH, COALESCED } = PacketFlag;
/** A packet with any other flag has work left, or was joined by somebody else. */
const JOINABLE_FLAGS = CHECKSUM_VALID | VLAN | HASH;
/** IPv4 tells its length in 16 bits, and IPv6 that of all behind its header. */
const MAX_IP_BYTES = 0xffff;

/** One segment with its headers; two of them take turns as the one joined to and the one that may follow. */
class Segment {
  readonly packet: PacketBytes;
  readonly layers = new PacketLayers();
  #isVerified = false;

  constructor(pool: PacketPool) {
    this.packet = new PacketBytes(pool);
  }

  move(handle: number): void {
    this.layers.parse(this.packet.move(handle));
    this.#isVerified = false;
  }

  get payloadBytes(): number {
    return this.layers.end - this.layers.payload;
  }

  /** Whether it is data of a connection that is under way, and nothing else: no options of IP, no flags but ACK and PSH. */
  get isData(): boolean {
    const { packet, layers } = this;
    const { version, network, transport, protocol, end } = layers;
    if (protocol !== IpProtocol.TCP || !layers.isWhole || end !== packet.length || this.payloadBytes <= 0) return false;
    if (transport - network !== (version === 4 ? Ipv4Header.BYTES : Ipv6Header.BYTES)) return false;
    return (packet.u8(transport + TcpHeader.FLAGS) & ~TcpFlag.PSH) === TcpFlag.ACK;
  }

  /** Whether its checksums are right; looked at once. */
  get isRight(): boolean {
    this.#isVerified ||= verifyChecksums(this.packet, this.layers) === ChecksumVerdict.RIGHT;
    return this.#isVerified;
  }
}

/** Joins the segments of one burst after the other; allocates nothing. */
export class SegmentJoiner {
  readonly #pool: PacketPool;
  #first: Segment;
  #next: Segment;
  /** Segments in the packet that is being joined; 0 where there is none to join to. */
  #count = 0;
  /** Bytes of the packet so far, and of the payload of each segment but the last. */
  #length = 0;
  #segmentBytes = 0;
  /** The field of the last buffer. */
  #last = 0;
  #sequence = 0;

  constructor(pool: PacketPool) {
    this.#pool = pool;
    this.#first = new Segment(pool);
    this.#next = new Segment(pool);
  }

  /**
   * Joins neighbours of a burst that are segments of one TCP connection, each at the place of the first. A packet that was
   * joined has COALESCED, its kind of segmentation with the segment size, and right checksums.
   *
   * @param kinds SEGMENT_TCP4, SEGMENT_TCP6, both or neither: what the receiver takes
   */
  join(burst: Burst, kinds: number): void {
    const { handles, count } = burst;
    let to = 0;
    this.#count = 0;
    for (let index = 0; index < count; index++) {
      const handle = handles[index]!;
      if (this.#take(handle, kinds)) continue;
      this.#finish();
      this.#begin(handle, kinds);
      handles[to++] = handle;
    }
    this.#finish();
    burst.count = to;
  }

  /** Looks at a packet, and joins it to those before it where it follows on them. */
  #take(handle: number, kinds: number): boolean {
    const next = this.#next;
    next.move(handle);
    if (this.#count === 0 || !this.#follows(handle, kinds) || !this.#first.isRight || !next.isRight) return false;
    const { fields } = this.#pool;
    const field = handle << WORDS_SHIFT;
    const { payload } = next.layers;
    const bytes = next.payloadBytes;
    // Its headers go: the first one's stand for all.
    fields[field + DATA_OFFSET]! += payload;
    fields[field + SEGMENT_LENGTH]! -= payload;
    fields[this.#last + NEXT] = handle + 1;
    this.#last = this.#lastField(handle);
    const { packet, layers } = this.#first;
    const flagsAt = layers.transport + TcpHeader.FLAGS;
    const pushes = next.packet.u8(next.layers.transport + TcpHeader.FLAGS) & TcpFlag.PSH;
    packet.setU8(flagsAt, packet.u8(flagsAt) | pushes);
    this.#length += bytes;
    this.#sequence = (this.#sequence + bytes) >>> 0;
    this.#count += 1;
    // Behind a short one, or one that is to be handed on at once, comes none.
    if (bytes < this.#segmentBytes || pushes !== 0) this.#finish();
    return true;
  }

  #follows(handle: number, kinds: number): boolean {
    const { packet, layers } = this.#first;
    const { packet: other, layers: otherLayers } = this.#next;
    const bytes = this.#next.payloadBytes;
    if (!this.#isJoinable(handle, this.#next, kinds) || otherLayers.payload !== layers.payload) return false;
    if (otherLayers.version !== layers.version || otherLayers.network !== layers.network) return false;
    if (bytes > this.#segmentBytes || this.#length + bytes - layers.network > MAX_IP_BYTES) return false;
    if (other.u32(layers.transport + TcpHeader.SEQUENCE) !== this.#sequence) return false;
    const { fields } = this.#pool;
    const field = handle << WORDS_SHIFT;
    const first = packet.handle << WORDS_SHIFT;
    if (((fields[field + FLAGS]! ^ fields[first + FLAGS]!) & VLAN) !== 0) return false;
    if (fields[field + VLAN_AND_PORT] !== fields[first + VLAN_AND_PORT]) return false;
    return hasEqualHeaders(packet, other, layers);
  }

  #isJoinable(handle: number, segment: Segment, kinds: number): boolean {
    const { fields } = this.#pool;
    const field = handle << WORDS_SHIFT;
    if ((fields[field + FLAGS]! & ~JOINABLE_FLAGS) !== 0 || !segment.isData) return false;
    const kind = segment.layers.version === 4 ? SEGMENT_TCP4 : SEGMENT_TCP6;
    return (kinds & kind) !== 0 && fields[field + SEGMENT_LENGTH]! >= segment.layers.payload;
  }

  /** Has others be joined to the packet that `next` is moved over, where they may. */
  #begin(handle: number, kinds: number): void {
    const first = this.#next;
    if (!this.#isJoinable(handle, first, kinds)) return;
    const { packet, layers } = first;
    if ((packet.u8(layers.transport + TcpHeader.FLAGS) & TcpFlag.PSH) !== 0) return;
    this.#next = this.#first;
    this.#first = first;
    this.#count = 1;
    this.#length = packet.length;
    this.#segmentBytes = first.payloadBytes;
    this.#sequence = (packet.u32(layers.transport + TcpHeader.SEQUENCE) + this.#segmentBytes) >>> 0;
    this.#last = this.#lastField(handle);
  }

  /** Puts lengths, checksums and fields of a packet right that was joined. */
  #finish(): void {
    const count = this.#count;
    this.#count = 0;
    if (count < 2) return;
    const { fields } = this.#pool;
    const { packet, layers } = this.#first;
    const field = packet.handle << WORDS_SHIFT;
    const { version, network, transport } = layers;
    fields[field + PACKET_LENGTH] = this.#length;
    packet.move(packet.handle);
    if (version === 4) {
      packet.setU16(network + Ipv4Header.TOTAL_LENGTH, this.#length - network);
      writeIpv4Checksum(packet, layers);
    } else {
      packet.setU16(network + Ipv6Header.PAYLOAD_LENGTH, this.#length - transport);
    }
    packet.setU16(transport + TcpHeader.CHECKSUM, pseudoHeaderSum(packet, layers, this.#length - transport));
    completeChecksum(packet, transport, TcpHeader.CHECKSUM);
    const kept = fields[field + FLAGS]! & (VLAN | HASH);
    const kind = version === 4 ? SEGMENT_TCP4 : SEGMENT_TCP6;
    fields[field + FLAGS] = kept | CHECKSUM_VALID | COALESCED | kind | (this.#segmentBytes << 16);
    // Segments, and duplicated acknowledgments, of which none is joined.
    fields[field + CHECKSUM] = count;
  }

  #lastField(handle: number): number {
    const { fields } = this.#pool;
    let field = handle << WORDS_SHIFT;
    for (let next = fields[field + NEXT]!; next !== 0; next = fields[field + NEXT]!) field = (next - 1) << WORDS_SHIFT;
    return field;
  }
}

/** Whether two segments have the same headers but for lengths, numbers, checksums and PSH. */
function hasEqualHeaders(one: PacketBytes, other: PacketBytes, layers: PacketLayers): boolean {
  const { version, network, transport, payload } = layers;
  // Up to the length, and behind the checksum of IPv4 with what it covers that differs.
  const length = network + (version === 4 ? Ipv4Header.TOTAL_LENGTH : Ipv6Header.PAYLOAD_LENGTH);
  if (!isEqual(one, other, 0, length)) return false;
  if (version === 4) {
    if (!isEqual(one, other, network + Ipv4Header.FRAGMENT, network + Ipv4Header.CHECKSUM)) return false;
    if (!isEqual(one, other, network + Ipv4Header.SOURCE, transport)) return false;
  } else if (!isEqual(one, other, network + Ipv6Header.NEXT_HEADER, transport)) return false;
  return (
    isEqual(one, other, transport, transport + TcpHeader.SEQUENCE) &&
    isEqual(one, other, transport + TcpHeader.ACKNOWLEDGMENT, transport + TcpHeader.FLAGS) &&
    isEqual(one, other, transport + TcpHeader.WINDOW, transport + TcpHeader.CHECKSUM) &&
    isEqual(one, other, transport + TcpHeader.CHECKSUM + 2, payload)
  );
}

function isEqual(one: PacketBytes, other: PacketBytes, from: number, end: number): boolean {
  for (let at = from; at < end; at++) if (one.u8(at) !== other.u8(at)) return false;
  return true;
}
