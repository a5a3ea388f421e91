/** `show port P rx_offload` and `tx_offload`: what a device can do, and what it was asked to do. */

import type { DeviceInfo } from '../devices/ethernet-device.js';
import type { Direction, TestPort } from '../test-port.js';
import { namesOfBits, RxOffload, TxOffload } from './bits-of-ethdev.js';

const names = { rx: RxOffload, tx: TxOffload } as const;
const titles = { rx: 'Rx', tx: 'Tx' } as const;

const named = (direction: Direction, offloads: bigint): string =>
  namesOfBits(offloads, names[direction])
    .map((name) => ` ${name}`)
    .join('');

export function offloadCapabilities(port: number, direction: Direction, info: DeviceInfo): string {
  const [device, queue] =
    direction === 'rx' ? [info.rxOffloads, info.rxQueueOffloads] : [info.txOffloads, info.txQueueOffloads];
  return [
    `${titles[direction]} Offloading Capabilities of port ${port} :`,
    `  Per Queue :${named(direction, queue)}`,
    `  Per Port  :${named(direction, device & ~queue)}`,
    '\n',
  ].join('\n');
}

/** The port's line is what the device was configured with last; those of the queues are what is set for them by now. */
export function offloadConfiguration(port: TestPort, direction: Direction): string {
  const { configured } = port;
  const offloads = direction === 'rx' ? configured?.rxOffloads : configured?.txOffloads;
  const queues = (direction === 'rx' ? configured?.rxQueues : configured?.txQueues) ?? 0;
  return [
    `${titles[direction]} Offloading Configuration of port ${port.id} :`,
    `  Port :${named(direction, offloads ?? 0n)}`,
    ...port
      .queues(direction)
      .slice(0, queues)
      .map((queue, number) => `  Queue[${String(number).padStart(2)}] :${named(direction, queue.offloads)}`),
    '\n',
  ].join('\n');
}
