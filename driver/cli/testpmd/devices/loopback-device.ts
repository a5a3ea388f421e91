/** `net_loopback`, which DPDK has not: the driver in front of the embedded device, which sends back what it gets. */

import { openPort } from '../../../open.js';
import { DeviceArguments } from './device-arguments.js';
import type { DeviceMaker } from './ethernet-device.js';
import { VirtioDevice } from './virtio-device.js';

const RING = 256;
/** Of the embedded device. */
const macAddress = Uint8Array.of(2, 0, 0, 0, 0, 1);

export const loopbackMaker: DeviceMaker = {
  matches: (name) => name.startsWith('net_loopback'),
  async make(name, devargs, { pool }) {
    const given = DeviceArguments.parse(devargs, ['queues', 'queue_size', 'packed_vq']);
    const ring = given.number('packed_vq', 0) === 0 ? 'split' : 'packed';
    const ringSize = given.number('queue_size', RING);
    return await VirtioDevice.open(name, devargs, {
      driverName: 'net_loopback',
      maxQueues: given.number('queues', 1),
      macAddress,
      open: (options) => openPort('loopback:', { pool, ringSize, ring, xstats: true, ...options }),
    });
  },
};
