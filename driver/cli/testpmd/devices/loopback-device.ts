/** `net_loopback`, which DPDK has not: the driver in front of the embedded device, which sends back what it gets. */

import { openPort } from '../../../open.js';
import { DeviceArguments } from './device-arguments.js';
import type { DeviceMaker } from './ethernet-device.js';
import { CommandedVirtioDevice } from './virtio-commands.js';

const RING = 256;
/** Of the embedded device. */
const macAddress = Uint8Array.of(2, 0, 0, 0, 0, 1);

export const loopbackMaker: DeviceMaker = {
  matches: (name) => name.startsWith('net_loopback'),
  async make(name, devargs, { pool }) {
    const given = DeviceArguments.parse(devargs, ['queues', 'queue_size', 'packed_vq']);
    const ring = given.number('packed_vq', 0) === 0 ? 'split' : 'packed';
    const queues = given.number('queues', 1);
    const ringSize = given.number('queue_size', RING);
    return await CommandedVirtioDevice.open(name, devargs, {
      driverName: 'net_loopback',
      maxQueues: queues,
      queues,
      macAddress,
      open: (options) => openPort('loopback:', { pool, ringSize, ring, xstats: true, ...options }),
    });
  },
};
