/** Work on a packet that one side may leave to the other, as `PacketFlag`s: checksums, and segments to be cut. */

import { OVERSIZE_FLAGS, PacketFlag } from '../memory/packet-fields.js';
import { GuestOffloadBit } from '../spec/control.js';
import { Feature, type FeatureSet } from '../spec/features.js';

const { NEEDS_CHECKSUM, SEGMENT_TCP4, SEGMENT_TCP6, SEGMENT_UDP, SEGMENT_ECN, FRAGMENT_UDP } = PacketFlag;

/** All that can be left. */
export const ALL_WORK = NEEDS_CHECKSUM | OVERSIZE_FLAGS | SEGMENT_ECN;

/** What a guest may leave to the device, by the features it has accepted (virtio 1.2 §5.1.6.2). */
export function workFromGuest(features: FeatureSet): number {
  if (!features.has(Feature.CSUM)) return 0;
  const work = (feature: Feature, flag: number): number => (features.has(feature) ? flag : 0);
  return (
    NEEDS_CHECKSUM |
    work(Feature.HOST_TSO4, SEGMENT_TCP4) |
    work(Feature.HOST_TSO6, SEGMENT_TCP6) |
    work(Feature.HOST_ECN, SEGMENT_ECN) |
    work(Feature.HOST_UFO, FRAGMENT_UDP) |
    work(Feature.HOST_USO, SEGMENT_UDP)
  );
}

/** What the device may leave to a guest, by the offloads that are on (virtio 1.2 §5.1.6.4, §5.1.6.5.8). */
export function workToGuest(offloads: bigint): number {
  const isOn = (offload: keyof typeof GuestOffloadBit): boolean =>
    ((offloads >> BigInt(GuestOffloadBit[offload])) & 1n) === 1n;
  if (!isOn('GUEST_CSUM')) return 0;
  return (
    NEEDS_CHECKSUM |
    (isOn('GUEST_TSO4') ? SEGMENT_TCP4 : 0) |
    (isOn('GUEST_TSO6') ? SEGMENT_TCP6 : 0) |
    (isOn('GUEST_ECN') ? SEGMENT_ECN : 0) |
    (isOn('GUEST_UFO') ? FRAGMENT_UDP : 0) |
    // Drivers take both kinds or none, and a packet's flags do not say which one it is.
    (isOn('GUEST_USO4') && isOn('GUEST_USO6') ? SEGMENT_UDP : 0)
  );
}
