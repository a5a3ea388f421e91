/** Device configuration of a network device (virtio 1.2 §5.1.4; tunnel types 1.3). */

import { ErrorCode, VirtioError } from '../errors.js';
import { masksOf } from './bits.js';
import { Feature } from './features.js';
import { bytes, layout, le16, le32, ro, u8 } from './layout.js';

/** Bytes of a MAC address. */
export const MAC_BYTES = 6;

/** The configuration space; every field is read-only for a driver with VERSION_1. */
export const virtioNetConfig = layout('virtio_net_config', 28, {
  mac: bytes(MAC_BYTES),
  status: ro(le16),
  max_virtqueue_pairs: ro(le16),
  mtu: ro(le16),
  /** In units of 1 Mbit/s; above `SPEED_MAX` unknown. */
  speed: ro(le32),
  /** A `Duplex`; any other value unknown. */
  duplex: ro(u8),
  rss_max_key_size: ro(u8),
  rss_max_indirection_table_length: ro(le16),
  supported_hash_types: ro(le32),
  supported_tunnel_types: ro(le32),
});

/**
 * The feature bits behind each optional field: it exists when one of them is offered (virtio 1.2 §5.1.4).
 *
 * `max_virtqueue_pairs` with RSS alone too: the document's structure says so, and so do the devices in use.
 */
export const netConfigFeatures: { readonly [K in keyof typeof virtioNetConfig.fields]: readonly number[] } = {
  mac: [Feature.MAC],
  status: [Feature.STATUS],
  max_virtqueue_pairs: [Feature.MQ, Feature.RSS],
  mtu: [Feature.MTU],
  speed: [Feature.SPEED_DUPLEX],
  duplex: [Feature.SPEED_DUPLEX],
  rss_max_key_size: [Feature.RSS, Feature.HASH_REPORT],
  rss_max_indirection_table_length: [Feature.RSS],
  supported_hash_types: [Feature.RSS, Feature.HASH_REPORT],
  supported_tunnel_types: [Feature.HASH_TUNNEL],
};

/** Bits of `status` by number. */
export const NetStatusBit = { LINK_UP: 0, ANNOUNCE: 1 } as const;
export const NetStatus = masksOf(NetStatusBit);

/** Highest `speed` that is one. */
export const SPEED_MAX = 0x7fff_ffff;

/** `duplex`, as the structure's text has it; the device clause of virtio 1.2 §5.1.4.1 says the opposite and nobody follows it. */
export const Duplex = { HALF: 0, FULL: 1 } as const;
export type Duplex = (typeof Duplex)[keyof typeof Duplex];

/** Bounds of `mtu` (virtio 1.2 §5.1.4.1). */
export const MTU_MIN = 68;
export const MTU_MAX = 65535;

/** Bounds of `max_virtqueue_pairs` (virtio 1.2 §5.1.4.1). */
export const QUEUE_PAIRS_MIN = 1;
export const QUEUE_PAIRS_MAX = 0x8000;

/** A device with RSS or HASH_REPORT takes keys of at least this many bytes (virtio 1.2 §5.1.4.1). */
export const RSS_KEY_BYTES_MIN = 40;
/** A device with RSS takes indirection tables of at least this many entries (virtio 1.2 §5.1.4.1). */
export const RSS_TABLE_ENTRIES_MIN = 128;

/** Queue indices (virtio 1.2 §5.1.2). */
export const receiveqIndex = (pair: number): number => 2 * pair;
export const transmitqIndex = (pair: number): number => 2 * pair + 1;
/** The control queue follows the pairs: `maxPairs` is max_virtqueue_pairs where MQ or RSS was accepted, else 1. */
export const controlqIndex = (maxPairs: number): number => 2 * maxPairs;

/** Bits of `supported_hash_types` and of hash_types in commands by number (virtio 1.2 §5.1.6.4.2.1). */
export const HashTypeBit = {
  IPv4: 0,
  TCPv4: 1,
  UDPv4: 2,
  IPv6: 3,
  TCPv6: 4,
  UDPv6: 5,
  IP_EX: 6,
  TCP_EX: 7,
  UDP_EX: 8,
} as const;
export const HashType = masksOf(HashTypeBit);

/** Bits of `supported_tunnel_types` by number (virtio 1.3). */
export const HashTunnelTypeBit = {
  GRE_2784: 0,
  GRE_2890: 1,
  GRE_7676: 2,
  GRE_UDP: 3,
  VXLAN: 4,
  VXLAN_GPE: 5,
  GENEVE: 6,
  IPIP: 7,
  NVGRE: 8,
} as const;
export const HashTunnelType = masksOf(HashTunnelTypeBit);

/** @throws VirtioError INVALID_ARGUMENT for what is no MTU */
export function checkMtu(mtu: number): void {
  if (Number.isInteger(mtu) && mtu >= MTU_MIN && mtu <= MTU_MAX) return;
  throw new VirtioError(
    ErrorCode.INVALID_ARGUMENT,
    `an MTU is a whole number from ${MTU_MIN} to ${MTU_MAX}, not ${mtu}`,
    {
      value: mtu,
      requirement: 'virtio 1.2 §5.1.4.1',
      advice: 'count the bytes behind the Ethernet header',
    },
  );
}

/** @throws VirtioError INVALID_ARGUMENT for what is no speed of a link */
export function checkSpeed(speed: number): void {
  if (Number.isInteger(speed) && speed >= 0 && speed <= SPEED_MAX) return;
  throw new VirtioError(ErrorCode.INVALID_ARGUMENT, `a speed is a whole number from 0 to ${SPEED_MAX}, not ${speed}`, {
    value: speed,
    requirement: 'virtio 1.2 §5.1.4.1',
    advice: 'give it in units of 1 Mbit/s',
  });
}
