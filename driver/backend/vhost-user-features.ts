/** Which of a device's feature bits go over a vhost-user connection, and which protocol features go with them. */

import { ErrorCode, VirtioError } from '../errors.js';
import { dropUnmetRequirements, Feature, FeatureSet, featureRequirements } from '../spec/features.js';
import { ProtocolFeature } from '../spec/vhost-user.js';
import type { DeviceModel } from './device-model.js';
import { OFFLOADS } from './net-device-offer.js';

/** Bits about commands, which a front-end that serves the control queue itself does not pass on. */
const COMMANDED = [
  Feature.CTRL_GUEST_OFFLOADS,
  Feature.DEVICE_STATS,
  Feature.VQ_NOTF_COAL,
  Feature.NOTF_COAL,
  Feature.HASH_REPORT,
  Feature.RSS,
];

/**
 * Bits that mean nothing to a back-end: what they are about (configuration fields, the doorbell, the status register)
 * stays with the front-end.
 *
 * RING_RESET, too: a front-end that serves it stops and starts one ring by messages. QEMU (7.2) passes the bit on where a
 * back-end offers it, and then sends no message to a vhost-user back-end when the guest resets a queue: it would go on
 * in memory that is the guest's again.
 */
const FRONTEND_OWNED = [
  Feature.MAC,
  Feature.STATUS,
  Feature.SR_IOV,
  Feature.NOTIFICATION_DATA,
  Feature.NOTIF_CONFIG_DATA,
  Feature.RING_RESET,
  Feature.ADMIN_VQ,
  Feature.SUSPEND,
  Feature.HASH_TUNNEL,
  Feature.STANDBY,
  Feature.SPEED_DUPLEX,
];

/** Bits that are no device's but this door's own. */
const OWN = [Feature.PROTOCOL_FEATURES, Feature.LOG_ALL];

/** Bits past 63 do not fit into a message. */
const CARRIED = FeatureSet.fromWords([0xffff_ffff, 0xffff_ffff]);

/** What GET_FEATURES answers. */
export const offeredFeatures = (device: DeviceModel): FeatureSet =>
  device.offered
    .intersection(CARRIED)
    .without(...FRONTEND_OWNED, ...(device.getsCommands === true ? [] : COMMANDED))
    // The front-end has the control queue, so that even a device without one has more pairs.
    .with(...OWN, ...(device.maxQueuePairs > 1 ? [Feature.MQ] : []));

/**
 * What GET_PROTOCOL_FEATURES answers, unless the owner says otherwise.
 *
 * CONFIG is for front-ends that know nothing of the device by themselves (user-mode Linux reads the number of its queue
 * pairs there). QEMU knows it all, prints a warning at the offer, and leaves it. MTU without the feature bit of the same
 * name: a front-end that has an MTU for its guest says so with NET_SET_MTU, whether or not the device has one of its own.
 */
export const offeredProtocolFeatures: readonly ProtocolFeature[] = [
  ProtocolFeature.MQ,
  ProtocolFeature.LOG_SHMFD,
  ProtocolFeature.RARP,
  ProtocolFeature.REPLY_ACK,
  ProtocolFeature.MTU,
  ProtocolFeature.BACKEND_REQ,
  ProtocolFeature.BACKEND_SEND_FD,
  ProtocolFeature.CONFIG,
  ProtocolFeature.INFLIGHT_SHMFD,
  ProtocolFeature.RESET_DEVICE,
  ProtocolFeature.INBAND_NOTIFICATIONS,
  ProtocolFeature.CONFIGURE_MEM_SLOTS,
  ProtocolFeature.STATUS,
];

/**
 * Why a set of protocol features ends the connection, or undefined where it does not: "If this feature
 * [VHOST_USER_PROTOCOL_F_INBAND_NOTIFICATIONS] is negotiated without [BACKEND_REQ and REPLY_ACK], the back-end must close
 * the connection" (vhost-user "In-band notifications", in short).
 */
export function protocolRefusal(bits: bigint): VirtioError | undefined {
  const has = (feature: ProtocolFeature): boolean => ((bits >> BigInt(feature)) & 1n) === 1n;
  const { INBAND_NOTIFICATIONS, BACKEND_REQ, REPLY_ACK } = ProtocolFeature;
  if (!has(INBAND_NOTIFICATIONS) || (has(BACKEND_REQ) && has(REPLY_ACK))) return undefined;
  return new VirtioError(
    ErrorCode.PROTOCOL_VIOLATION,
    'INBAND_NOTIFICATIONS was negotiated without BACKEND_REQ and REPLY_ACK',
    { value: bits, requirement: 'vhost-user "In-band notifications"' },
  );
}

/** What is to be said of a feature bit of a connection: who offered it, who wanted it, where it was dropped and why. */
export function explainFeature(bit: number, device: DeviceModel, accepted: FeatureSet | undefined): string {
  const includes = (bits: readonly number[]): boolean => bits.includes(bit);
  if (!includes(OWN)) {
    if (!device.offered.has(bit)) return 'the device does not offer it';
    if (includes(FRONTEND_OWNED)) return 'the device has it, but what it is about is the business of the front-end';
    if (device.getsCommands !== true && includes(COMMANDED))
      return 'the device has it, but most front-ends keep commands to themselves';
    if (!CARRIED.has(bit)) return 'the device has it, but no vhost-user message can carry it';
  }
  const who = includes(OWN) ? 'vhost-user' : 'the device';
  if (accepted === undefined) return `${who} offers it; the front-end has not chosen yet`;
  return accepted.has(bit) ? `${who} offers it, the front-end accepted it` : `${who} offers it, the front-end left it`;
}

/**
 * What the device is told of the bits that a front-end accepted.
 *
 * A front-end serves the control queue itself and may leave CTRL_VQ out while it accepts bits that need it, as DPDK
 * does with MQ. The requirement is met then, only elsewhere. Offloads that lack what they need are as if they had not been
 * accepted: QEMU lets each be turned off by itself, offers what needs it all the same, and Linux accepts that.
 */
export function deviceFeatures(accepted: FeatureSet, device: DeviceModel): FeatureSet {
  const own = accepted.without(...OWN, ...(device.offered.has(Feature.MQ) ? [] : [Feature.MQ]));
  const unmet = [...dropUnmetRequirements(own).dropped.keys()];
  const features = own.without(...unmet.filter((bit) => OFFLOADS.has(bit)));
  const needsControl = features.bits.some((bit) =>
    featureRequirements.get(bit)?.some((group) => group.includes(Feature.CTRL_VQ)),
  );
  return needsControl && device.offered.has(Feature.CTRL_VQ) ? features.with(Feature.CTRL_VQ) : features;
}
