/** Which of a device's feature bits go over a vhost-user connection, and which protocol features go with them. */

import { Feature, FeatureSet, featureRequirements } from '../spec/features.js';
import { ProtocolFeature } from '../spec/vhost-user.js';
import type { DeviceModel } from './device-model.js';

/**
 * Bits that mean nothing to a back-end: what they are about (configuration fields, the control queue, the doorbell, the
 * status register, queue reset) stays with the front-end.
 */
const FRONTEND_OWNED = [
  Feature.CTRL_GUEST_OFFLOADS,
  Feature.MAC,
  Feature.STATUS,
  Feature.SR_IOV,
  Feature.NOTIFICATION_DATA,
  Feature.NOTIF_CONFIG_DATA,
  Feature.RING_RESET,
  Feature.ADMIN_VQ,
  Feature.SUSPEND,
  Feature.DEVICE_STATS,
  Feature.HASH_TUNNEL,
  Feature.VQ_NOTF_COAL,
  Feature.NOTF_COAL,
  Feature.HASH_REPORT,
  Feature.RSS,
  Feature.STANDBY,
  Feature.SPEED_DUPLEX,
];

/** Bits whose messages are not served: address translation, the dirty log, and ring bases with wrap counters. */
const NOT_SERVED = [Feature.ACCESS_PLATFORM, Feature.LOG_ALL, Feature.RING_PACKED];

/** Bits past 63 do not fit into a message. */
const CARRIED = FeatureSet.fromWords([0xffff_ffff, 0xffff_ffff]);

/** What GET_FEATURES answers. */
export const offeredFeatures = (device: DeviceModel): FeatureSet =>
  device.offered
    .intersection(CARRIED)
    .without(...FRONTEND_OWNED, ...NOT_SERVED)
    .with(Feature.PROTOCOL_FEATURES);

/**
 * What GET_PROTOCOL_FEATURES answers, unless the owner says otherwise.
 *
 * CONFIG only with an MTU, which is all that a front-end does not know better by itself: QEMU prints a warning where it
 * is offered.
 */
export function offeredProtocolFeatures(device: DeviceModel): readonly ProtocolFeature[] {
  const { MQ, REPLY_ACK, STATUS, CONFIGURE_MEM_SLOTS, CONFIG, MTU } = ProtocolFeature;
  const always = [MQ, REPLY_ACK, STATUS, CONFIGURE_MEM_SLOTS];
  return device.offered.has(Feature.MTU) ? [...always, CONFIG, MTU] : always;
}

/**
 * What the device is told of the bits that a front-end accepted.
 *
 * A front-end serves the control queue itself and may leave CTRL_VQ out while it accepts bits that need it, as DPDK
 * does with MQ. The requirement is met then, only elsewhere.
 */
export function deviceFeatures(accepted: FeatureSet, device: DeviceModel): FeatureSet {
  const features = accepted.without(Feature.PROTOCOL_FEATURES);
  const needsControl = features.bits.some((bit) =>
    featureRequirements.get(bit)?.some((group) => group.includes(Feature.CTRL_VQ)),
  );
  return needsControl && device.offered.has(Feature.CTRL_VQ) ? features.with(Feature.CTRL_VQ) : features;
}
