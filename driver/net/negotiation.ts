/** Which features the driver asks for, which it gets, and why. */

import { ErrorCode, VirtioError } from '../errors.js';
import { dropUnmetRequirements, Feature, FeatureSet, featureName } from '../spec/features.js';
import type { OfferedFeatures } from '../spec/transport.js';
import { longPacketFeatures, offloadFeatures, type PortOffloads } from './port-offloads.js';

/** A feature the driver asks for, and its reason. */
export interface Wish {
  readonly feature: Feature;
  readonly reason: string;
  /** Without it the driver refuses the device. */
  readonly required?: boolean;
  /** Another feature, without which the driver cannot use it. */
  readonly needs?: Feature;
}

/** What became of one feature bit. */
export interface FeatureOutcome {
  readonly feature: number;
  readonly name: string;
  /** Who offers it: the device, the transport on its behalf, or nobody. */
  readonly offeredBy: 'device' | 'transport' | 'nobody';
  /** Why the driver wants it; undefined when it does not. */
  readonly wantedFor: string | undefined;
  readonly accepted: boolean;
  /** One sentence: why it was accepted or not. */
  readonly explanation: string;
}

/** The end of a negotiation. */
export interface Negotiation {
  readonly features: FeatureSet;
  /** Every bit that was offered or wanted, ascending. */
  readonly outcomes: readonly FeatureOutcome[];
}

/** What an application can choose. */
export interface FeatureChoices {
  readonly queuePairs: number;
  /** Receive buffers may be merged into one packet: needed for packets longer than a buffer. Default on. */
  readonly mergeable?: boolean | undefined;
  /** Notifications by index instead of by flag. Default off, as in DPDK: a polling driver needs neither. */
  readonly eventIndex?: boolean | undefined;
  /** Packets of several segments take one descriptor of the ring. Default on. */
  readonly indirect?: boolean | undefined;
  /**
   * The device uses buffers in the order they are given, and may tell of several at once. Default off: looking for the ends
   * of batches takes longer than it saves where both ends poll (ARCHITECTURE.md, "In order").
   */
  readonly inOrder?: boolean | undefined;
  /** Notifications tell how far a ring has come, in the device's own words. Default off: devices in hardware gain by it. */
  readonly notificationData?: boolean | undefined;
  /** Format of the rings. `packed` is refused by devices that have none; it is quicker where both ends poll. Default split. */
  readonly ring?: 'split' | 'packed' | undefined;
  /** The device drops packets of VLANs that `control.setVlan` has not turned on. Default off: those of all VLANs come. */
  readonly vlanFilter?: boolean | undefined;
  /** What is done to packets beside moving them. Default: nothing. */
  readonly offloads?: PortOffloads | undefined;
  /** Features without which the device is refused. */
  readonly demand?: readonly Feature[] | undefined;
}

const modernWishes: readonly Wish[] = [
  { feature: Feature.VERSION_1, reason: 'this driver speaks virtio 1.0 and later', required: true },
  { feature: Feature.ACCESS_PLATFORM, reason: 'the device must use the addresses that it is given' },
  // What this driver does anyway is enough for hardware (ARCHITECTURE.md, "Barriers").
  { feature: Feature.ORDER_PLATFORM, reason: 'memory is ordered as devices in hardware need it' },
  { feature: Feature.NOTIF_CONFIG_DATA, reason: 'to name queues as the device does' },
  { feature: Feature.RING_RESET, reason: 'to stop, start and resize single queues' },
];
const legacyWishes: readonly Wish[] = [
  { feature: Feature.ANY_LAYOUT, reason: 'to put header and packet into one descriptor', required: true },
];

/** The driver's wishes, each with its reason. */
export function wishes(choices: FeatureChoices, isLegacy = false): Wish[] {
  const { queuePairs, mergeable = true, eventIndex = false, indirect = true, inOrder = false, demand = [] } = choices;
  const list: Wish[] = [
    ...(isLegacy ? legacyWishes : modernWishes),
    { feature: Feature.MAC, reason: 'to know the address of the port' },
    { feature: Feature.STATUS, reason: 'to see the link go up and down' },
    { feature: Feature.MTU, reason: 'to keep to the longest packet the network takes' },
    { feature: Feature.SPEED_DUPLEX, reason: 'to know how fast the link is' },
  ];
  if (mergeable) list.push({ feature: Feature.MRG_RXBUF, reason: 'to receive packets longer than a buffer' });
  if (indirect) list.push({ feature: Feature.INDIRECT_DESC, reason: 'to send scattered packets with one descriptor' });
  if (choices.ring === 'packed') {
    list.push({ feature: Feature.RING_PACKED, reason: 'to have packed rings', required: true });
  }
  if (inOrder && !isLegacy) {
    list.push({ feature: Feature.IN_ORDER, reason: 'to take back packets by the batch, in the order they were given' });
  }
  if (eventIndex) list.push({ feature: Feature.EVENT_IDX, reason: 'to save notifications' });
  if (choices.notificationData === true && !isLegacy) {
    list.push({ feature: Feature.NOTIFICATION_DATA, reason: 'to tell the device how far a ring has come' });
  }
  const commands = queuePairs > 1 ? 'to turn queue pairs on, and to answer announcements' : 'to answer announcements';
  list.push({ feature: Feature.CTRL_VQ, reason: commands });
  list.push({ feature: Feature.GUEST_ANNOUNCE, reason: 'to be told when the network should learn where the port is' });
  list.push({ feature: Feature.CTRL_RX, reason: 'to choose which packets it gets' });
  list.push({ feature: Feature.CTRL_RX_EXTRA, reason: 'to choose which packets it gets' });
  list.push({ feature: Feature.CTRL_MAC_ADDR, reason: 'to take another address' });
  list.push({ feature: Feature.CTRL_GUEST_OFFLOADS, reason: 'to turn offloads on and off' });
  list.push({ feature: Feature.NOTF_COAL, reason: 'to be told of packets less often' });
  list.push({ feature: Feature.VQ_NOTF_COAL, reason: 'to be told of packets less often, queue by queue' });
  list.push({ feature: Feature.DEVICE_STATS, reason: 'to ask what the device has counted' });
  if (choices.vlanFilter === true)
    list.push({ feature: Feature.CTRL_VLAN, reason: 'to get packets of some VLANs alone' });
  if (queuePairs > 1) {
    list.push({ feature: Feature.RSS, reason: 'to choose the queue of each flow' });
    list.push({ feature: Feature.MQ, reason: `to use ${queuePairs} queue pairs`, required: true });
  }
  for (const [feature, reason] of offloadFeatures(choices.offloads ?? {})) {
    // No buffer of a pool takes the 65562 bytes that such a packet may have.
    if (longPacketFeatures.includes(feature)) list.push({ feature, reason, needs: Feature.MRG_RXBUF });
    else list.push({ feature, reason });
  }
  for (const feature of demand) {
    checkDriven(feature);
    const index = list.findIndex((wish) => wish.feature === feature);
    const wish = { feature, reason: list[index]?.reason ?? 'the application demands it', required: true };
    if (index < 0) list.push(wish);
    else list[index] = wish;
  }
  return list;
}

/** Features that change how rings or notifications look, and that this driver does not drive. */
const undriven: readonly number[] = [Feature.ADMIN_VQ];
/** Bits from here on came with virtio 1.4: none of them is driven, known or not. */
const FIRST_UNDRIVEN = 64;

/** @throws VirtioError UNSUPPORTED for a feature that would be accepted and not be kept to */
function checkDriven(feature: number): void {
  if (!undriven.includes(feature) && feature < FIRST_UNDRIVEN) return;
  throw new VirtioError(ErrorCode.UNSUPPORTED, `this driver does not drive ${featureName(feature)}`, {
    value: feature,
    requirement: 'virtio 1.2 §2.2.1',
    advice: 'leave it out of what is demanded',
  });
}

/**
 * Chooses the features: what is wanted and offered, less what lacks its requirements (virtio 1.2 §2.2.1, §5.1.3.1).
 *
 * Unknown bits that are offered are ignored. @throws VirtioError FEATURE_MISSING without a required one
 */
export function negotiate(offered: OfferedFeatures, wanted: readonly Wish[]): Negotiation {
  const all = offered.device.union(offered.transport);
  const wishSet = FeatureSet.of(...wanted.map((wish) => wish.feature));
  const both = all.intersection(wishSet);
  const unusable = wanted.filter(({ feature, needs }) => needs !== undefined && both.has(feature) && !both.has(needs));
  const { features, dropped } = dropUnmetRequirements(both.without(...unusable.map(({ feature }) => feature)));
  const outcomes = all.union(wishSet).bits.map((feature): FeatureOutcome => {
    const wish = wanted.find((candidate) => candidate.feature === feature);
    const lacking = dropped.get(feature) ?? (unusable.includes(wish!) ? [wish!.needs!] : undefined);
    const offeredBy = offered.device.has(feature) ? 'device' : offered.transport.has(feature) ? 'transport' : 'nobody';
    return {
      feature,
      name: featureName(feature),
      offeredBy,
      wantedFor: wish?.reason,
      accepted: features.has(feature),
      explanation: explain(offeredBy, wish, lacking),
    };
  });
  const missing = wanted.find((wish) => wish.required === true && !features.has(wish.feature));
  if (missing !== undefined) throw missingFeature(missing, dropped.get(missing.feature), all);
  return { features, outcomes };
}

function explain(
  offeredBy: FeatureOutcome['offeredBy'],
  wish: Wish | undefined,
  lacking: readonly number[] | undefined,
): string {
  if (wish === undefined) return `offered by the ${offeredBy}, and this driver has no use for it`;
  if (offeredBy === 'nobody') return `wanted ${wish.reason}, and nobody offers it`;
  if (lacking !== undefined)
    return `offered, but it needs ${lacking.map(featureName).join(' or ')}, which was not accepted`;
  return `offered by the ${offeredBy}, accepted ${wish.reason}`;
}

function missingFeature(wish: Wish, lacking: readonly number[] | undefined, offered: FeatureSet): VirtioError {
  const name = featureName(wish.feature);
  const why =
    lacking === undefined ? 'is not offered' : `needs ${lacking.map(featureName).join(' or ')}, which is not offered`;
  return new VirtioError(ErrorCode.FEATURE_MISSING, `the device lacks ${name} (${wish.reason}): it ${why}`, {
    value: offered.toString(),
    requirement: 'virtio 1.2 §2.2',
    advice: `turn ${name} on at the other side, or do without it here`,
  });
}
