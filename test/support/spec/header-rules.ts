/** What the header before a packet must say, by the accepted features (virtio 1.2 §5.1.6.2.1, §5.1.6.4.1). */

import { ETHERNET_HEADER_BYTES } from '../../../driver/spec/ethernet.js';
import { Feature, type FeatureSet } from '../../../driver/spec/features.js';
import { VLAN_TAG_BYTES } from '../../../driver/spec/internet.js';
import { GsoFlag, GsoType, NetHeaderFlag, netHeaderBytes, virtioNetHdr } from '../../../driver/spec/net-header.js';
import { transportOf } from './transport-header.js';
import type { Rule, Violations } from './violations.js';

interface HeaderFields {
  readonly flags: number;
  readonly gso_type: number;
  readonly hdr_len: number;
  readonly gso_size: number;
  readonly csum_start: number;
  readonly csum_offset: number;
  readonly num_buffers: number;
}

/** The feature behind each kind of segmentation, for packets of the driver and of the device. */
const segmentation: Readonly<Record<number, readonly [host: Feature, guest: readonly Feature[]]>> = {
  [GsoType.TCPV4]: [Feature.HOST_TSO4, [Feature.GUEST_TSO4]],
  [GsoType.UDP]: [Feature.HOST_UFO, [Feature.GUEST_UFO]],
  [GsoType.TCPV6]: [Feature.HOST_TSO6, [Feature.GUEST_TSO6]],
  [GsoType.UDP_L4]: [Feature.HOST_USO, [Feature.GUEST_USO4, Feature.GUEST_USO6]],
};
const TUNNEL = GsoFlag.UDP_TUNNEL_IPV4 | GsoFlag.UDP_TUNNEL_IPV6;

/** The fields of a header; `num_buffers` is 0 where there is none. */
function readHeader(bytes: Uint8Array, headerBytes: number): HeaderFields {
  const whole = new Uint8Array(virtioNetHdr.bytes);
  whole.set(bytes.subarray(0, Math.min(headerBytes, whole.length)));
  return virtioNetHdr.read(new DataView(whole.buffer));
}

/** @param packet header and frame, as a driver gives them to the device */
export function checkSentPacket(
  packet: Uint8Array,
  features: FeatureSet,
  mtu: number | undefined,
  violations: Violations,
): void {
  const headerBytes = netHeaderBytes(features);
  if (!violations.insist('D32', packet.length > headerBytes, `a packet of ${packet.length} bytes with its header`))
    return;
  const header = readHeader(packet, headerBytes);
  const frame = packet.subarray(headerBytes);
  const { flags } = header;
  violations.insist('D32', header.num_buffers === 0, `num_buffers is ${header.num_buffers} in a packet that is sent`);
  if (!features.has(Feature.CSUM)) violations.insist('D32', flags === 0, `flags are ${flags} without CSUM`);
  const foreign = flags & (NetHeaderFlag.DATA_VALID | NetHeaderFlag.RSC_INFO);
  violations.insist('D33', foreign === 0, `flags ${flags} are for the device to set`);
  checkSegmentation('D33', header, violations, (type) => {
    const host = segmentation[type]?.[0];
    return host !== undefined && features.has(host);
  });
  if ((header.gso_type & GsoFlag.ECN) !== 0) {
    violations.insist('D33', features.has(Feature.HOST_ECN), 'the ECN bit without HOST_ECN');
  }
  if ((flags & NetHeaderFlag.NEEDS_CSUM) !== 0) checkPartialChecksum(header, frame, features, violations);
  // Segments are as long as the MTU allows; what they are cut from is not bound by it.
  const limit = mtu === undefined ? Number.POSITIVE_INFINITY : mtu + ETHERNET_HEADER_BYTES + VLAN_TAG_BYTES;
  if (header.gso_type === GsoType.NONE) {
    violations.insist('D37', frame.length <= limit, `a frame of ${frame.length} bytes with an MTU of ${mtu}`);
  }
}

/** @param packet header and frame, as a device has put them into the buffers of a driver */
export function checkReceivedPacket(
  packet: Uint8Array,
  features: FeatureSet,
  mtu: number | undefined,
  violations: Violations,
): void {
  const headerBytes = netHeaderBytes(features);
  const header = readHeader(packet, headerBytes);
  const frame = packet.subarray(headerBytes);
  const { flags, csum_start, csum_offset } = header;
  if (!features.has(Feature.GUEST_CSUM)) {
    violations.insist('E13', flags === 0, `flags are ${flags} without GUEST_CSUM`);
  }
  if ((flags & NetHeaderFlag.RSC_INFO) !== 0) {
    violations.insist('E13', features.has(Feature.RSC_EXT), 'RSC_INFO without RSC_EXT');
    const isJoined = header.gso_type !== GsoType.NONE && csum_start > 1;
    violations.insist('E13', isJoined, `RSC_INFO with gso_type ${header.gso_type} and ${csum_start} segments`);
  }
  checkSegmentation('E13', header, violations, (type) =>
    (segmentation[type]?.[1] ?? []).some((guest) => features.has(guest)),
  );
  if ((header.gso_type & GsoFlag.ECN) !== 0) {
    violations.insist('E13', features.has(Feature.GUEST_ECN), 'the ECN bit without GUEST_ECN');
  }
  if ((flags & NetHeaderFlag.NEEDS_CSUM) !== 0 && (flags & NetHeaderFlag.RSC_INFO) === 0) {
    violations.insist('E13', csum_start + csum_offset + 2 <= frame.length, 'a checksum behind the end of the frame');
  }
  const limit = mtu === undefined ? Number.POSITIVE_INFINITY : mtu + ETHERNET_HEADER_BYTES + VLAN_TAG_BYTES;
  if (header.gso_type === GsoType.NONE) {
    violations.insist('E15', frame.length <= limit, `a frame of ${frame.length} bytes with an MTU of ${mtu}`);
  }
}

/** What holds both ways of a packet that is to be cut. */
function checkSegmentation(
  rule: Rule,
  header: HeaderFields,
  violations: Violations,
  isAccepted: (type: number) => boolean,
): void {
  const type = header.gso_type & ~(GsoFlag.ECN | TUNNEL);
  if (header.gso_type === GsoType.NONE) return;
  violations.insist(rule, isAccepted(type), `gso_type ${header.gso_type}, which was not accepted`);
  violations.insist(rule, header.gso_size > 0, `gso_type ${header.gso_type} with gso_size 0`);
  const needsChecksum = (header.flags & NetHeaderFlag.NEEDS_CSUM) !== 0;
  violations.insist(rule, needsChecksum, `gso_type ${header.gso_type} without NEEDS_CSUM`);
}

/** "the driver MUST set the checksum field to the sum of the pseudo header" and say where it is (virtio 1.2 §5.1.6.2.1). */
function checkPartialChecksum(
  header: HeaderFields,
  frame: Uint8Array,
  features: FeatureSet,
  violations: Violations,
): void {
  const { csum_start, csum_offset, gso_type, hdr_len } = header;
  const at = csum_start + csum_offset;
  if (!violations.insist('D34', at + 2 <= frame.length, `a checksum at ${at} of ${frame.length} bytes`)) return;
  const transport = transportOf(frame);
  if (transport === undefined) return;
  violations.insist('D34', csum_start === transport.start, `csum_start is ${csum_start}, not ${transport.start}`);
  violations.insist(
    'D34',
    csum_offset === transport.checksumOffset,
    `csum_offset is ${csum_offset}, not ${transport.checksumOffset}`,
  );
  const found = (frame[at]! << 8) | frame[at + 1]!;
  violations.insist('D34', found === transport.pseudoSum, `${found} is not the sum of the pseudo header`);
  if (gso_type !== GsoType.NONE && features.has(Feature.GUEST_HDRLEN)) {
    const exact = transport.start + transport.headerBytes;
    violations.insist('D34', hdr_len === exact, `hdr_len is ${hdr_len}, not ${exact}`);
  }
}
