/** A vhost-user back-end in a process of its own, for tests that kill it: `node cli-backend.js PATH [OPTIONS AS JSON]`. */

import { DeviceThread } from '../../driver/backend/device-thread.js';
import { NetDevice } from '../../driver/backend/net-device.js';
import { VhostUserServer } from '../../driver/backend/vhost-user-server.js';
import { Feature } from '../../driver/spec/features.js';
import type { Fault } from './faulty-port.js';

export interface BackendOptions {
  readonly fault?: Fault;
  readonly queues?: number;
  readonly without?: readonly (keyof typeof Feature)[];
  readonly mtu?: number;
}

/** Packets of the first ring that a guest sends by, after which the traffic counts as steady. */
const STEADY = 2000;

function sayWhenTrafficFlows(device: NetDevice): void {
  const timer = setInterval(() => {
    if (device.statistics(1).packets < STEADY) return;
    clearInterval(timer);
    console.log('traffic');
  }, 50).unref();
}

const [path = '', text = '{}'] = process.argv.slice(2);
const options = JSON.parse(text) as BackendOptions;
const module = new URL('./faulty-port.js', import.meta.url);
const thread = await DeviceThread.start({ ports: [module] });
const port = { module: module.href, options: options.fault ?? { kind: 'none', packet: 0 } };
const server = await VhostUserServer.listen(path, {
  createDevice: () => {
    const device = new NetDevice(thread, {
      port,
      queuePairs: options.queues ?? 4,
      mtu: options.mtu,
      without: (options.without ?? []).map((name) => Feature[name]),
    });
    sayWhenTrafficFlows(device);
    return device;
  },
  onEvent: (event) => console.log(event.type),
});
process.on('SIGTERM', async () => {
  await server.close();
  await thread.stop();
});
