/** Work on packets that a port can be opened with, who does it, and which features that takes (DPDK's `RTE_ETH_*_OFFLOAD_*`). */

import { PacketFlag } from '../memory/packet-fields.js';
import { workFromGuest } from '../offload/work.js';
import { Feature, type FeatureSet, featureName } from '../spec/features.js';

/** Offloads by name; those that are not named are off. What a device lacks, the driver does where it can: `port.offloads` tells. */
export interface PortOffloads {
  /** Sent packets with NEEDS_CHECKSUM get their checksum (`TX_OFFLOAD_TCP_CKSUM`, `TX_OFFLOAD_UDP_CKSUM`). */
  readonly txChecksum?: boolean | undefined;
  /** Sent packets with SEGMENT_TCP4 or SEGMENT_TCP6 are cut (`TX_OFFLOAD_TCP_TSO`). */
  readonly tso?: boolean | undefined;
  /** Sent packets with SEGMENT_UDP are cut (`TX_OFFLOAD_UDP_TSO`). */
  readonly uso?: boolean | undefined;
  /** Sent packets with FRAGMENT_UDP, which are UDP, are cut into IP fragments. */
  readonly ufo?: boolean | undefined;
  /** Sent packets with VLAN get their tag (`TX_OFFLOAD_VLAN_INSERT`). */
  readonly vlanInsert?: boolean | undefined;
  /** Received packets have CHECKSUM_VALID where that is known, or NEEDS_CHECKSUM (`RX_OFFLOAD_TCP_CKSUM`, `RX_OFFLOAD_UDP_CKSUM`). */
  readonly rxChecksum?: boolean | undefined;
  /** TCP packets may come as one of up to 64 KiB, with SEGMENT_TCP4 or SEGMENT_TCP6 (`RX_OFFLOAD_TCP_LRO`). */
  readonly lro?: boolean | undefined;
  /** The same of UDP, with SEGMENT_UDP. */
  readonly uro?: boolean | undefined;
  /** IP fragments of UDP may come as one packet, with FRAGMENT_UDP. */
  readonly ufoReceive?: boolean | undefined;
  /** A received packet's tag is taken out of it, and it has VLAN (`RX_OFFLOAD_VLAN_STRIP`). */
  readonly vlanStrip?: boolean | undefined;
  /** Received packets have the HASH that the device has computed (`RX_OFFLOAD_RSS_HASH`), once it was told which ones. */
  readonly rssHash?: boolean | undefined;
}
export type OffloadName = keyof PortOffloads;

/** Who sees to an offload since the port's last start. */
export interface OffloadOutcome {
  readonly name: OffloadName;
  /** Whether the port was opened with it. */
  readonly isOn: boolean;
  /** The device, the driver in software, or nobody. */
  readonly by: 'device' | 'driver' | 'nobody';
  /** Features that the device needs for it. */
  readonly needs: readonly string[];
  /** One sentence. */
  readonly explanation: string;
}

/** What the queues of one direction do. Plain data, for the threads that poll. */
export interface QueueOffloads {
  /** `PacketFlag`s that headers may have. */
  readonly flags: number;
  /** Receive: tags are taken out. */
  readonly stripsTags?: boolean;
  /** Receive: checksums are looked at, because no device has. */
  readonly verifiesChecksums?: boolean;
}

interface OffloadKind {
  /** Features without which the device does not see to all of it. */
  readonly needs: readonly Feature[];
  /** Features that go with it. */
  readonly uses?: readonly Feature[];
  /** The driver does it where the device does not. */
  readonly isInSoftware: boolean;
  readonly reason: string;
}

const kinds: Readonly<Record<OffloadName, OffloadKind>> = {
  txChecksum: {
    needs: [Feature.CSUM],
    uses: [Feature.GUEST_HDRLEN],
    isInSoftware: true,
    reason: 'to leave checksums of sent packets to the device',
  },
  tso: {
    needs: [Feature.HOST_TSO4, Feature.HOST_TSO6],
    uses: [Feature.CSUM, Feature.HOST_ECN, Feature.GUEST_HDRLEN],
    isInSoftware: true,
    reason: 'to leave the cutting of long TCP packets to the device',
  },
  uso: {
    needs: [Feature.HOST_USO],
    uses: [Feature.CSUM, Feature.GUEST_HDRLEN],
    isInSoftware: true,
    reason: 'to leave the cutting of long UDP packets to the device',
  },
  ufo: {
    needs: [Feature.HOST_UFO],
    uses: [Feature.CSUM, Feature.GUEST_HDRLEN],
    isInSoftware: true,
    reason: 'to leave the cutting of UDP into IP fragments to the device',
  },
  vlanInsert: { needs: [], isInSoftware: true, reason: 'to put tags into packets' },
  rxChecksum: { needs: [Feature.GUEST_CSUM], isInSoftware: true, reason: 'to be told of checksums that are right' },
  lro: {
    needs: [Feature.GUEST_TSO4, Feature.GUEST_TSO6],
    uses: [Feature.GUEST_CSUM, Feature.GUEST_ECN, Feature.RSC_EXT],
    isInSoftware: false,
    reason: 'to receive long TCP packets',
  },
  uro: {
    needs: [Feature.GUEST_USO4, Feature.GUEST_USO6],
    uses: [Feature.GUEST_CSUM],
    isInSoftware: false,
    reason: 'to receive long UDP packets',
  },
  ufoReceive: {
    needs: [Feature.GUEST_UFO],
    uses: [Feature.GUEST_CSUM],
    isInSoftware: false,
    reason: 'to receive UDP in one packet that came in IP fragments',
  },
  vlanStrip: { needs: [], isInSoftware: true, reason: 'to take tags out of packets' },
  rssHash: { needs: [Feature.HASH_REPORT], isInSoftware: false, reason: 'to be told the hash of packets' },
};
const names = Object.keys(kinds) as OffloadName[];

/**
 * Features by which a device makes packets of 64 KiB: "If … VIRTIO_NET_F_GUEST_TSO4 … are negotiated, the driver SHOULD
 * populate the receive queue(s) with buffers of at least 65562 bytes" (virtio 1.2 §5.1.6.3.1), or merge smaller ones.
 */
export const longPacketFeatures: readonly Feature[] = [
  Feature.GUEST_TSO4,
  Feature.GUEST_TSO6,
  Feature.GUEST_UFO,
  Feature.GUEST_USO4,
  Feature.GUEST_USO6,
];

/** Whether queues have work to do beside moving packets. */
export const hasOffloads = (offloads: PortOffloads | undefined): boolean =>
  offloads !== undefined && names.some((name) => offloads[name] === true);

/** Every feature that these offloads want, once, with its reason. */
export function offloadFeatures(offloads: PortOffloads): Map<Feature, string> {
  const wanted = new Map<Feature, string>();
  for (const name of names) {
    const { needs, uses = [], reason } = kinds[name];
    if (offloads[name] !== true) continue;
    for (const feature of [...needs, ...uses]) if (!wanted.has(feature)) wanted.set(feature, reason);
  }
  return wanted;
}

/** Who sees to each offload, under these accepted features. */
export const offloadOutcomes = (offloads: PortOffloads, features: FeatureSet): OffloadOutcome[] =>
  names.map((name) => {
    const { needs, isInSoftware } = kinds[name];
    const isOn = offloads[name] === true;
    const missing = needs.filter((feature) => !features.has(feature)).map(featureName);
    const byDevice = needs.length > 0 && missing.length === 0;
    const by = !isOn ? 'nobody' : byDevice ? 'device' : isInSoftware ? 'driver' : 'nobody';
    return { name, isOn, by, needs: needs.map(featureName), explanation: explain(isOn, by, missing) };
  });

function explain(isOn: boolean, by: OffloadOutcome['by'], missing: readonly string[]): string {
  if (!isOn) return 'the port was opened without it';
  if (by === 'device') return 'done by the device';
  const lack = missing.length === 0 ? 'no virtio-net device does it' : `${missing.join(' and ')} was not accepted`;
  return by === 'driver' ? `${lack}: done in software` : `${lack}, and it cannot be done in software`;
}

/** What a transmit queue does. */
export const txOffloads = (features: FeatureSet): QueueOffloads => ({ flags: workFromGuest(features) });

/** What a receive queue does; undefined where that is nothing. */
export function rxOffloads(offloads: PortOffloads, features: FeatureSet): QueueOffloads | undefined {
  const flags = flagsOf(features, [
    [Feature.GUEST_CSUM, PacketFlag.NEEDS_CHECKSUM | PacketFlag.CHECKSUM_VALID],
    [Feature.GUEST_TSO4, PacketFlag.SEGMENT_TCP4],
    [Feature.GUEST_TSO6, PacketFlag.SEGMENT_TCP6],
    [Feature.GUEST_ECN, PacketFlag.SEGMENT_ECN],
    [Feature.GUEST_UFO, PacketFlag.FRAGMENT_UDP],
    [Feature.GUEST_USO4, PacketFlag.SEGMENT_UDP],
    [Feature.GUEST_USO6, PacketFlag.SEGMENT_UDP],
    [Feature.RSC_EXT, PacketFlag.COALESCED],
    [Feature.HASH_REPORT, PacketFlag.HASH],
  ]);
  const stripsTags = offloads.vlanStrip === true;
  const verifiesChecksums = offloads.rxChecksum === true && !features.has(Feature.GUEST_CSUM);
  return flags === 0 && !stripsTags && !verifiesChecksums ? undefined : { flags, stripsTags, verifiesChecksums };
}

const flagsOf = (features: FeatureSet, table: readonly (readonly [Feature, number])[]): number =>
  table.reduce((flags, [feature, flag]) => (features.has(feature) ? flags | flag : flags), 0);
