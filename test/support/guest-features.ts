/** QEMU's own network device with each of its features on and off: its properties, and what a driver of ours makes of them. */

import type { OpenPortOptions } from '../../driver/open.js';
import { Feature } from '../../driver/spec/features.js';
import type { CombinationOf } from './pairwise.js';

/** Features of the device, each as QEMU's property of that name has it, and queue pairs. */
export const PARAMETERS = {
  packed: [true, false],
  event_idx: [true, false],
  indirect_desc: [true, false],
  mrg_rxbuf: [true, false],
  mq: [true, false],
  rss: [true, false],
  hash: [true, false],
  /** 0 for none. */
  host_mtu: [1400, 0],
  ctrl_guest_offloads: [true, false],
} as const;
export type DeviceFeatures = CombinationOf<typeof PARAMETERS>;

/** Names a device: `packed event_idx mq host_mtu`. */
export const describeDevice = (device: DeviceFeatures): string =>
  Object.entries(device)
    .filter(([, value]) => value !== false && value !== 0)
    .map(([name]) => name)
    .join(' ') || 'none';

/** Returns the properties of `virtio-net-pci`. */
export const propertiesOf = (device: DeviceFeatures): string =>
  Object.entries(device)
    .map(([name, value]) => `${name}=${typeof value === 'boolean' ? (value ? 'on' : 'off') : value}`)
    .join(',');

export const pairsOf = ({ mq }: DeviceFeatures): number => (mq ? 2 : 1);

/** How a port is opened that uses all that the device has. */
export const portOptionsOf = (device: DeviceFeatures): OpenPortOptions => ({
  queues: pairsOf(device),
  ring: device.packed ? 'packed' : 'split',
  eventIndex: true,
});

/** The lengths of packets: all that the device passes; those above a buffer make chains, and come back in several. */
export function lengthsFor({ host_mtu, mrg_rxbuf }: DeviceFeatures): readonly number[] {
  if (host_mtu !== 0) return [64, 594, host_mtu + ETHERNET_BYTES];
  return mrg_rxbuf ? [64, 594, 1518, 5000] : [64, 594, 1518];
}
export const ETHERNET_BYTES = 14;

/** Bits that are to be accepted, and those that are not. */
export function acceptedOf(device: DeviceFeatures): ReadonlyMap<Feature, boolean> {
  return new Map<Feature, boolean>([
    [Feature.RING_PACKED, device.packed],
    [Feature.EVENT_IDX, device.event_idx],
    [Feature.INDIRECT_DESC, device.indirect_desc],
    [Feature.MRG_RXBUF, device.mrg_rxbuf],
    [Feature.MQ, device.mq],
    // Among several queues alone there is something to choose.
    [Feature.RSS, device.mq && device.rss],
    [Feature.MTU, device.host_mtu !== 0],
    [Feature.CTRL_GUEST_OFFLOADS, device.ctrl_guest_offloads],
  ]);
}

/** Bits that the device is to offer, whether or not a driver has a use for them. */
export const offeredOf = (device: DeviceFeatures): ReadonlyMap<Feature, boolean> =>
  new Map<Feature, boolean>([
    [Feature.RSS, device.rss],
    [Feature.HASH_REPORT, device.hash],
  ]);

/** What the program in the guest is told of one device. */
export interface TrafficTask {
  readonly address: string;
  readonly device: DeviceFeatures;
  /** Over all queues, a multiple of their number. */
  readonly packets: number;
}
