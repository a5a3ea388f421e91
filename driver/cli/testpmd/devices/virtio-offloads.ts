/** Offloads as ethdev has them, for virtio: which ones a device's features are, and which options of a port they are. */

import type { PortOffloads } from '../../../index.js';
import { Feature, type FeatureSet } from '../../../spec/features.js';

/** Bits of `RTE_ETH_RX_OFFLOAD_*`. */
const Rx = {
  VLAN_STRIP: 1n << 0n,
  UDP_CHECKSUM: 1n << 2n,
  TCP_CHECKSUM: 1n << 3n,
  TCP_LRO: 1n << 4n,
  VLAN_FILTER: 1n << 9n,
  SCATTER: 1n << 13n,
} as const;

/** Bits of `RTE_ETH_TX_OFFLOAD_*`. */
const Tx = {
  VLAN_INSERT: 1n << 0n,
  UDP_CHECKSUM: 1n << 2n,
  TCP_CHECKSUM: 1n << 3n,
  TCP_TSO: 1n << 5n,
  MULTI_SEGS: 1n << 15n,
} as const;

const RX_CHECKSUMS = Rx.UDP_CHECKSUM | Rx.TCP_CHECKSUM;
const TX_CHECKSUMS = Tx.UDP_CHECKSUM | Tx.TCP_CHECKSUM;
const GUEST_SEGMENTS = [Feature.GUEST_TSO4, Feature.GUEST_TSO6] as const;
const HOST_SEGMENTS = [Feature.HOST_TSO4, Feature.HOST_TSO6] as const;

const where = (isSo: boolean, bits: bigint): bigint => (isSo ? bits : 0n);

/** What the host's end does, whatever its guest: checksums of packets each way. */
export const hostOffloads = {
  rx: Rx.VLAN_STRIP | RX_CHECKSUMS,
  tx: Tx.MULTI_SEGS | Tx.VLAN_INSERT | TX_CHECKSUMS,
} as const;

export const stripsTags = (rxOffloads: bigint): boolean => (rxOffloads & Rx.VLAN_STRIP) !== 0n;

export const receivesChecksums = (rxOffloads: bigint): boolean => (rxOffloads & RX_CHECKSUMS) !== 0n;

export const rxOffloadsOf = (offered: FeatureSet): bigint =>
  Rx.VLAN_STRIP |
  where(offered.has(Feature.MRG_RXBUF), Rx.SCATTER) |
  where(offered.has(Feature.GUEST_CSUM), RX_CHECKSUMS) |
  where(offered.has(Feature.CTRL_VLAN), Rx.VLAN_FILTER) |
  where(
    GUEST_SEGMENTS.every((feature) => offered.has(feature)),
    Rx.TCP_LRO,
  );

export const txOffloadsOf = (offered: FeatureSet): bigint =>
  Tx.MULTI_SEGS |
  Tx.VLAN_INSERT |
  where(offered.has(Feature.CSUM), TX_CHECKSUMS) |
  where(
    HOST_SEGMENTS.every((feature) => offered.has(feature)),
    Tx.TCP_TSO,
  );

/** What a port is to be opened with for them. */
export function portOffloads(rx: bigint, tx: bigint): PortOffloads {
  const wanted = {
    vlanStrip: (rx & Rx.VLAN_STRIP) !== 0n,
    rxChecksum: (rx & RX_CHECKSUMS) !== 0n,
    lro: (rx & Rx.TCP_LRO) !== 0n,
    vlanInsert: (tx & Tx.VLAN_INSERT) !== 0n,
    txChecksum: (tx & TX_CHECKSUMS) !== 0n,
    tso: (tx & Tx.TCP_TSO) !== 0n,
  };
  return Object.fromEntries(Object.entries(wanted).filter(([, isOn]) => isOn));
}

export const filtersVlans = (rx: bigint): boolean => (rx & Rx.VLAN_FILTER) !== 0n;
