/** `net_virtio`: a virtio device of this machine, which `-a` names by its PCI address. */

import { openPort, probePciDevice } from '../../../open.js';
import { parsePciAddress } from '../../../pci/pci-address.js';
import type { DeviceMaker } from './ethernet-device.js';
import { CommandedVirtioDevice } from './virtio-commands.js';

/** `VIRTIO_MAX_RX_QUEUES`. */
const MAX_QUEUES = 128;
const NO_ADDRESS = new Uint8Array(6);
const RING = 256;

export const virtioPciMaker: DeviceMaker = {
  matches: (name) => parsePciAddress(name) !== undefined,
  async make(name, devargs, { pool }) {
    const address = parsePciAddress(name)!;
    const { queuePairs, ringSizes } = await probePciDevice(address, 'vfio');
    return await CommandedVirtioDevice.open(name, devargs, {
      driverName: 'net_virtio',
      maxQueues: Math.min(queuePairs ?? 1, MAX_QUEUES),
      queues: 1,
      macAddress: NO_ADDRESS,
      // Rings as large as the device has them, as DPDK does: legacy ones cannot be smaller.
      open: (options) => openPort(address, { pool, ringSize: ringSizes?.[0] || RING, xstats: true, ...options }),
    });
  },
};
