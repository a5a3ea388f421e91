/** `net_virtio_user`: the driver in front of a vhost-user back-end, or of this kernel's. */

import { randomBytes } from 'node:crypto';
import type { PacketPool } from '../../../index.js';
import { type OpenPortOptions, openPort } from '../../../open.js';
import type { DeviceMaker } from './ethernet-device.js';
import { VirtioDevice, type VirtioKind } from './virtio-device.js';
import { parseVirtioUserArguments } from './virtio-user-arguments.js';

export const virtioUserMaker: DeviceMaker = {
  matches: (name) => name.startsWith('net_virtio_user') || /^virtio_user\d*$/.test(name),
  async make(name, devargs, { pool, log }) {
    const given = parseVirtioUserArguments(devargs);
    if (given.macAddress === undefined) {
      log(`virtio_user_dev_init_mac(): (${given.path}) No valid MAC in devargs or device, use random`);
    }
    if (given.server) log(`vhost_user_start_server(): (${given.path}) waiting for client connection...`);
    const kind = kindOf(given, pool);
    return given.hasControlQueue
      ? await ObligingVirtioUser.open(name, devargs, kind)
      : await VirtioDevice.open(name, devargs, kind);
  },
};

/** With `cq=1`: commands are taken and change nothing, for the front-end answers them itself, as DPDK's does. */
class ObligingVirtioUser extends VirtioDevice {
  async setPromiscuous(): Promise<void> {}
  async setAllMulticast(): Promise<void> {}
  async addMacAddress(): Promise<void> {}
  async removeMacAddress(): Promise<void> {}
  async filterVlan(): Promise<void> {}
}

function kindOf(given: ReturnType<typeof parseVirtioUserArguments>, pool: PacketPool): VirtioKind {
  const macAddress = given.macAddress ?? randomMac();
  const address =
    given.backend === 'vhost-kernel' ? `vhost-kernel:${given.interface ?? ''}` : `vhost-user:${given.path}`;
  const own: OpenPortOptions = {
    pool,
    macAddress,
    server: given.server,
    reconnect: given.server,
    ringSize: given.queueSize,
    ring: given.packed ? 'packed' : 'split',
    mergeable: given.mergeable,
    // DPDK asks for it unless it is told not to; this driver is quicker without (ARCHITECTURE.md, "In order").
    inOrder: false,
    // As DPDK's driver.
    keepNumBuffers: true,
    xstats: true,
  };
  return {
    driverName: 'net_virtio_user',
    maxQueues: given.queues,
    queues: given.queues,
    macAddress,
    speed: given.speed,
    open: (options) => openPort(address, { ...own, ...options }),
  };
}

/** Locally administered. */
function randomMac(): Uint8Array {
  const address = Uint8Array.from(randomBytes(6));
  address[0] = (address[0]! & 0xfc) | 2;
  return address;
}
