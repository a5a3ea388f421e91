/** What a net device offers. */

import { caps } from '../spec/caps.js';
import { dropUnmetRequirements, Feature, FeatureSet } from '../spec/features.js';

export interface OfferOptions {
  /** Queue pairs, 128 at most; with 128 there is no control queue. Default 1. */
  readonly queuePairs?: number | undefined;
  /** Offers ACCESS_PLATFORM: rings and descriptors hold IOVAs, which the front-end translates. Default false. */
  readonly iommu?: boolean | undefined;
  /** Bits to offer instead of the usual ones. */
  readonly features?: FeatureSet | undefined;
  /** Bits not to offer. */
  readonly without?: readonly Feature[] | undefined;
  /** 68 to 65535: no longer packet goes to a guest that has accepted the bit. */
  readonly mtu?: number | undefined;
  /** Of the link, in Mbit/s: the device says so, and that it is full duplex. vhost-user front-ends say it themselves. */
  readonly speed?: number | undefined;
}

/**
 * Checksums and segmentation, for whatever port: what a receiver does not do, the host does (`CompletedPackets`).
 *
 * RSC_EXT is for segments that are joined here (`SegmentJoiner`), for guests that have accepted it and no others.
 */
export const OFFLOADS = FeatureSet.of(
  Feature.CSUM,
  Feature.HOST_TSO4,
  Feature.HOST_TSO6,
  Feature.HOST_ECN,
  Feature.HOST_UFO,
  Feature.HOST_USO,
  Feature.GUEST_CSUM,
  Feature.GUEST_TSO4,
  Feature.GUEST_TSO6,
  Feature.GUEST_ECN,
  Feature.GUEST_UFO,
  Feature.GUEST_USO4,
  Feature.GUEST_USO6,
  Feature.GUEST_HDRLEN,
  Feature.RSC_EXT,
);

/** Features that are nothing without commands, though they do not require CTRL_VQ by name. */
const COMMANDED = [Feature.CTRL_GUEST_OFFLOADS, Feature.HASH_REPORT, Feature.DEVICE_STATS];

/**
 * What a device of these options offers: what the rings and the device can do now, each tested. No bit is offered without
 * what it requires (virtio 1.2 §2.2.2), but for those of `features`.
 *
 * @param threads that its pairs are spread over
 */
export function offeredFeatures(options: OfferOptions, threads = 1): FeatureSet {
  const { without = [] } = options;
  if (options.features !== undefined) return options.features.without(...without);
  let features = FeatureSet.of(
    Feature.VERSION_1,
    // For a transitional device in the guest that is driven as a legacy one.
    Feature.ANY_LAYOUT,
    Feature.MAC,
    Feature.STATUS,
    ...OFFLOADS.bits,
    Feature.MRG_RXBUF,
    Feature.INDIRECT_DESC,
    Feature.EVENT_IDX,
    Feature.RING_PACKED,
    // Every queue returns the first chains of what it has looked at, whatever happens to them.
    Feature.IN_ORDER,
    // For the emulated function; over vhost-user they are the front-end's (`vhost-user-features.ts`).
    Feature.NOTIFICATION_DATA,
    Feature.NOTIF_CONFIG_DATA,
    Feature.RING_RESET,
    Feature.CTRL_VQ,
    Feature.CTRL_RX,
    Feature.CTRL_RX_EXTRA,
    Feature.CTRL_VLAN,
    Feature.CTRL_MAC_ADDR,
    Feature.GUEST_ANNOUNCE,
    Feature.CTRL_GUEST_OFFLOADS,
    Feature.NOTF_COAL,
    Feature.VQ_NOTF_COAL,
    Feature.HASH_REPORT,
    Feature.DEVICE_STATS,
  );
  const { queuePairs = 1 } = options;
  if (queuePairs > 1) features = features.with(Feature.MQ);
  // The guest's table may say any pair for any packet, and a thread has only its own.
  if (queuePairs > 1 && threads === 1) features = features.with(Feature.RSS);
  // The control queue would be ring 256, which the 8 bits of a vhost-user index have no place for.
  if (queuePairs === caps.queuePairs) features = features.without(Feature.CTRL_VQ);
  if (options.mtu !== undefined) features = features.with(Feature.MTU);
  if (options.speed !== undefined) features = features.with(Feature.SPEED_DUPLEX);
  if (options.iommu === true) features = features.with(Feature.ACCESS_PLATFORM);
  features = features.without(...without);
  if (!features.has(Feature.CTRL_VQ)) features = features.without(...COMMANDED);
  return dropUnmetRequirements(features).features;
}
