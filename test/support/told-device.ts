/** A device of testpmd that tells what it is told to: for the layouts of reports. */

import type { DeviceInfo, DeviceStatistics, EthernetDevice } from '../../driver/cli/testpmd/devices/ethernet-device.js';
import { TestPort } from '../../driver/cli/testpmd/test-port.js';

export const noStatistics: DeviceStatistics = {
  rxPackets: 0,
  rxBytes: 0,
  rxMissed: 0,
  rxErrors: 0,
  rxNoBuffer: 0,
  txPackets: 0,
  txBytes: 0,
  txErrors: 0,
};

const limits = { max: 32768, min: 32, align: 1, maxSegments: 65535, maxMtuSegments: 65535 };

/** What DPDK 22.11 tells of its virtio-user port with two queue pairs. */
export const virtioUserInfo: DeviceInfo = {
  driverName: 'net_virtio_user',
  macAddress: Uint8Array.of(0, 1, 2, 3, 4, 5),
  maxMacAddresses: 64,
  maxHashMacAddresses: 0,
  minRxBufferBytes: 64,
  maxRxPacketBytes: 9728,
  maxLroBytes: 0,
  minMtu: 68,
  maxMtu: 9702,
  maxRxQueues: 2,
  maxTxQueues: 2,
  rxDescriptors: limits,
  txDescriptors: limits,
  rxOffloads: 0x201dn,
  txOffloads: 0x800dn,
  rxQueueOffloads: 0n,
  txQueueOffloads: 0n,
  rssTypes: 0n,
  hashKeyBytes: 0,
  redirectionTableSize: 0,
  capabilities: 0n,
};

export interface Told {
  readonly name?: string;
  readonly devargs?: string;
  readonly info?: Partial<DeviceInfo>;
  readonly statistics?: Partial<DeviceStatistics>;
}

/** A device that does nothing. */
export function toldDevice({
  name = 'net_virtio_user0',
  devargs = '',
  info = {},
  statistics = {},
}: Told): EthernetDevice {
  const done = async (): Promise<void> => undefined;
  return {
    name,
    devargs,
    info: () => ({ ...virtioUserInfo, ...info }),
    configure: done,
    start: done,
    stop: done,
    close: done,
    link: () => ({ up: true, speed: 0xffff_ffff, fullDuplex: true, autoneg: true }),
    onLinkChange: undefined,
    statistics: () => ({ ...noStatistics, ...statistics }),
    resetStatistics: () => undefined,
    extendedStatistics: () => [],
    resetExtendedStatistics: () => undefined,
    lcoreModule: new URL('file:///none'),
    lcoreData: () => undefined,
  };
}

/** A port with such a device, configured with so many queue pairs. */
export function toldPort(id: number, told: Told = {}, queues = 2): TestPort {
  const port = new TestPort(id, toldDevice(told));
  const queue = () => ({
    descriptors: 0,
    offloads: 0n,
    thresholds: {
      prefetch: undefined,
      host: undefined,
      writeBack: undefined,
      free: undefined,
      rs: undefined,
      dropEnable: false,
    },
    deferredStart: false,
    state: 'started' as const,
  });
  port.rxQueues = Array.from({ length: queues }, queue);
  port.txQueues = Array.from({ length: queues }, queue);
  port.configured = {
    rxQueues: queues,
    txQueues: queues,
    rxDescriptors: 0,
    txDescriptors: 0,
    rxOffloads: 0n,
    txOffloads: 0n,
    mtu: undefined,
    maxLroBytes: 0,
  };
  return port;
}
