/** The header before every packet (virtio 1.2 §5.1.6; from 24 bytes on virtio 1.4). */

import { masksOf } from './bits.js';
import { Feature, type FeatureSet } from './features.js';
import { bytes, layout, le16, le32, u8 } from './layout.js';

const base = { flags: u8, gso_type: u8, hdr_len: le16, gso_size: le16, csum_start: le16, csum_offset: le16 };
const version1 = { ...base, num_buffers: le16 };
const hash = { ...version1, hash_value: le32, hash_report: le16, padding_reserved: le16 };
const tunnel = { ...hash, outer_th_offset: le16, inner_nh_offset: le16 };

/** The header of a legacy device without MRG_RXBUF: no `num_buffers`. */
export const virtioNetHdrLegacy = layout('virtio_net_hdr', 10, base);
/** The header with VERSION_1 or MRG_RXBUF. Every longer one begins with it. */
export const virtioNetHdr = layout('virtio_net_hdr_v1', 12, version1);
/** The header with HASH_REPORT. */
export const virtioNetHdrHash = layout('virtio_net_hdr_v1_hash', 20, hash);
/** The header with one of the UDP_TUNNEL_GSO bits; the hash fields are there and unused without HASH_REPORT. */
export const virtioNetHdrTunnel = layout('virtio_net_hdr_v1_hash_tunnel', 24, tunnel);
/** The header with OUT_NET_HEADER or IPSEC; `security` names the security association with IPSEC. */
export const virtioNetHdrOut = layout('virtio_net_hdr_out_net_header', 32, {
  ...tunnel,
  outer_nh_offset: le16,
  security: bytes(6),
});

/** Size of the longest header. */
export const NET_HEADER_BYTES_MAX = virtioNetHdrOut.bytes;

/**
 * The size of the header before every packet, both ways, under these accepted features: 10, 12, 20, 24 or 32.
 *
 * The one place that derives it; every buffer and copy goes by this figure.
 */
export function netHeaderBytes(features: FeatureSet): number {
  if (features.has(Feature.OUT_NET_HEADER) || features.has(Feature.IPSEC)) return virtioNetHdrOut.bytes;
  if (features.has(Feature.GUEST_UDP_TUNNEL_GSO) || features.has(Feature.HOST_UDP_TUNNEL_GSO))
    return virtioNetHdrTunnel.bytes;
  if (features.has(Feature.HASH_REPORT)) return virtioNetHdrHash.bytes;
  if (features.has(Feature.VERSION_1) || features.has(Feature.MRG_RXBUF)) return virtioNetHdr.bytes;
  return virtioNetHdrLegacy.bytes;
}

/** Bits of `flags` by number. */
export const NetHeaderFlagBit = {
  /** The checksum at `csum_start + csum_offset` is still to be computed, from `csum_start` on. */
  NEEDS_CSUM: 0,
  /** The device has checked the checksum. Device to driver only. */
  DATA_VALID: 1,
  /** `csum_start` is a number of segments, `csum_offset` one of duplicated ACKs. Device to driver only. */
  RSC_INFO: 2,
  /** virtio 1.4, as all from here. */
  UDP_TUNNEL_CSUM: 3,
  SECURITY: 4,
  SECURITY_ERR: 5,
  SECURITY_SA_SOFT_EXPIRY_WARN: 6,
} as const;
export const NetHeaderFlag = masksOf(NetHeaderFlagBit);

/** `gso_type` without the bits of `GsoFlag`. */
export const GsoType = {
  NONE: 0,
  TCPV4: 1,
  UDP: 3,
  TCPV6: 4,
  /** virtio 1.3. */
  UDP_L4: 5,
} as const;
export type GsoType = (typeof GsoType)[keyof typeof GsoType];

/** Bits of `gso_type` by number. */
export const GsoFlagBit = {
  /** virtio 1.4. */
  UDP_TUNNEL_IPV4: 5,
  /** virtio 1.4. */
  UDP_TUNNEL_IPV6: 6,
  /** The TCP segment has ECN set. */
  ECN: 7,
} as const;
export const GsoFlag = masksOf(GsoFlagBit);

/** `hash_report`: what the hash was computed over (virtio 1.2 §5.1.6.4.3). */
export const HashReport = {
  NONE: 0,
  IPv4: 1,
  TCPv4: 2,
  UDPv4: 3,
  IPv6: 4,
  TCPv6: 5,
  UDPv6: 6,
  IPv6_EX: 7,
  TCPv6_EX: 8,
  UDPv6_EX: 9,
} as const;
export type HashReport = (typeof HashReport)[keyof typeof HashReport];
