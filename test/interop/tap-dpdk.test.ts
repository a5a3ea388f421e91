/** A DPDK front-end and the host's kernel: connected by a tap alone, and by a switch with a tap as its uplink. */

import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { DeviceThread } from '../../driver/backend/device-thread.js';
import { NetDevice } from '../../driver/backend/net-device.js';
import type { BackendPortSpec } from '../../driver/backend/ports/backend-port.js';
import { switchPort, switchUplinkPort, tapPort } from '../../driver/backend/ports/built-in.js';
import { VhostUserServer } from '../../driver/backend/vhost-user-server.js';
import { skipWithout, skipWithoutRoot } from '../support/skip.js';
import { TapNamespace } from '../support/tap-namespace.js';
import { uniqueName } from '../support/test-names.js';
import { Testpmd } from '../support/testpmd.js';

export const timeBoundSeconds = 120;

const test = skipWithoutRoot(skipWithout(suite('tap with a DPDK front-end'), 'dpdk', 'iproute2', 'ping'));

const MAC = '02:00:00:00:02:01';

interface Stand {
  readonly port: BackendPortSpec;
  readonly thread: DeviceThread;
}

/** Has testpmd answer pings as the guest of a port, and pings it from the namespace of the tap. */
async function pingGuest(tap: string, make: (stand: DeviceThread) => Promise<Stand & { close(): Promise<void> }>) {
  const folder = await mkdtemp(join(tmpdir(), 'tap-dpdk-'));
  const ending: (() => Promise<unknown>)[] = [() => rm(folder, { recursive: true })];
  try {
    const thread = await DeviceThread.start();
    ending.push(() => thread.stop());
    const stand = await make(thread);
    ending.push(() => stand.close());
    const path = join(folder, 'socket');
    const server = await VhostUserServer.listen(path, {
      createDevice: async () => {
        const device = new NetDevice(thread, { port: stand.port });
        await device.ready();
        return device;
      },
    });
    ending.push(() => server.close());
    const testpmd = await Testpmd.start({
      vdevs: [`net_virtio_user0,path=${path},mac=${MAC}`],
      options: ['--forward-mode=icmpecho', '--port-topology=loop'],
      megabytes: 192,
    });
    ending.push(() => testpmd.quit());
    await testpmd.command('start', /icmpecho packet forwarding/);
    const space = await TapNamespace.create(tap, '198.51.100.1');
    ending.push(() => space.close());
    for (const size of [56, 1472]) {
      assert.is(await space.ping('198.51.100.2', 20, '-s', String(size)), 20, `${size} bytes`);
    }
    const neighbour = await space.run('ip', 'neighbour', 'show', '198.51.100.2');
    assert.match(neighbour, new RegExp(`lladdr ${MAC}`));
  } finally {
    for (const end of ending.reverse()) await end();
  }
}

test('the kernel pings a guest that has a tap to itself', () => {
  const name = uniqueName('td');
  return pingGuest(name, async (thread) => ({ thread, port: tapPort({ name }), close: async () => {} }));
});

test('the kernel pings a guest of the switch through its uplink', () => {
  const name = uniqueName('td');
  return pingGuest(name, async (thread) => {
    const uplink = new NetDevice(thread, { port: switchUplinkPort({ tap: { name } }) });
    await uplink.ready();
    return { thread, port: switchPort(), close: () => uplink.close() };
  });
});

test.run();
