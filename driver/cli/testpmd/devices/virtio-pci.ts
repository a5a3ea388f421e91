/** `net_virtio`: a virtio device of this machine, which `-a` names by its PCI address. */

import { openPort } from '../../../open.js';
import { parsePciAddress } from '../../../pci/pci-address.js';
import type { DeviceMaker } from './ethernet-device.js';
import { VirtioDevice } from './virtio-device.js';

/** `VIRTIO_MAX_RX_QUEUES`. */
const MAX_QUEUES = 128;
const NO_ADDRESS = new Uint8Array(6);
const RING = 256;

export const virtioPciMaker: DeviceMaker = {
  matches: (name) => parsePciAddress(name) !== undefined,
  make: (name, devargs, { pool }) =>
    VirtioDevice.open(name, devargs, {
      driverName: 'net_virtio',
      maxQueues: MAX_QUEUES,
      macAddress: NO_ADDRESS,
      open: (options) => openPort(parsePciAddress(name)!, { pool, ringSize: RING, xstats: true, ...options }),
    }),
};
