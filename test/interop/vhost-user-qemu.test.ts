/** The back-end's control plane with QEMU as front-end: the virtual machine's boot ROM brings the device up, no system needed. */

import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import type { ServerEvent } from '../../driver/backend/vhost-user-events.js';
import { VhostUserServer, type VhostUserServerOptions } from '../../driver/backend/vhost-user-server.js';
import { Feature, FeatureSet } from '../../driver/spec/features.js';
import { skipWithout } from '../support/skip.js';
import { until } from '../support/until.js';
import { FakeDevice } from '../support/vhost-user-device.js';
import { assertNoFdLeak } from '../support/vhost-user-raw.js';

export const timeBoundSeconds = 240;

const test = skipWithout(suite('vhost-user with QEMU'), 'qemu');

/** The ROM takes seconds to come to the network card where nothing speeds the processor up. */
const BOOT_MS = 90_000;

// The first child process makes Node open a descriptor for good.
test.before(async () => {
  await once(spawn('true'), 'close');
});

interface Bench {
  readonly path: string;
  readonly devices: FakeDevice[];
  readonly events: ServerEvent[];
  readonly options: VhostUserServerOptions;
  /** Starts a machine with one network card of two queue pairs on the socket. */
  boot(role: 'client' | 'server'): ChildProcess;
  /** What the machine's emulator said. */
  said(): string;
}

const OFFERED = FeatureSet.of(Feature.MRG_RXBUF, Feature.INDIRECT_DESC, Feature.CTRL_VQ, Feature.MQ, Feature.VERSION_1);

function withQemu(body: (bench: Bench) => Promise<void>): Promise<void> {
  return assertNoFdLeak(async () => {
    const folder = await mkdtemp(join(tmpdir(), 'vhost-user-qemu-'));
    const devices: FakeDevice[] = [];
    const events: ServerEvent[] = [];
    const machines: ChildProcess[] = [];
    let said = '';
    const path = join(folder, 'socket');
    try {
      await body({
        path,
        devices,
        events,
        said: () => said,
        options: {
          createDevice: () => {
            devices.push(new FakeDevice({ queuePairs: 2, offered: OFFERED }));
            return devices.at(-1)!;
          },
          onEvent: (event) => events.push(event),
        },
        boot: (role) => {
          const socket = `socket,id=c,path=${path}${role === 'server' ? ',server=on' : ''}`;
          const machine = spawn('qemu-system-x86_64', [
            ...['-machine', 'q35,accel=tcg', '-m', '128', '-numa', 'node,memdev=m'],
            ...['-object', 'memory-backend-memfd,id=m,size=128M,share=on'],
            ...['-chardev', socket, '-netdev', 'vhost-user,id=n,chardev=c,queues=2'],
            ...['-device', 'virtio-net-pci,netdev=n,mq=on,vectors=6,bootindex=1'],
            ...['-display', 'none', '-serial', 'none', '-monitor', 'none', '-nodefaults'],
          ]);
          machine.stderr.on('data', (bytes: Buffer) => {
            said += bytes.toString();
          });
          machines.push(machine);
          return machine;
        },
      });
    } finally {
      for (const machine of machines) {
        if (machine.exitCode !== null || machine.signalCode !== null) continue;
        machine.kill('SIGKILL');
        await once(machine, 'close');
      }
      await rm(folder, { recursive: true });
    }
    assert.equal(
      devices.flatMap((device) => device.violations),
      [],
    );
    assert.equal(
      events.filter((event) => event.type === 'error').map((event) => event.error.toLine()),
      [],
    );
  });
}

const isUp = (device: FakeDevice | undefined): boolean => device !== undefined && device.running.size === 2;

test('QEMU as client: rings of the first pair run; a machine that ends leaves nothing', () =>
  withQemu(async ({ path, devices, options, boot, said }) => {
    const server = await VhostUserServer.listen(path, options);
    try {
      const machine = boot('client');
      await until(() => isUp(devices[0]), 'the boot ROM to start the rings', BOOT_MS);
      assert.equal([...devices[0]!.enabled], [0, 1]);
      const memory = devices[0]!.regions.reduce((sum, region) => sum + region.bytes, 0);
      assert.ok(memory > 127 << 20, `${memory} bytes`);
      machine.kill('SIGTERM');
      await until(() => devices[0]!.isClosed, 'the device to be closed');
      // It warns of CONFIG, which it does not want from a network device and others do.
      const complaints = said().replace(/^.*supports VHOST_USER_PROTOCOL_F_CONFIG but QEMU does not\.?$/gm, '');
      assert.not.match(complaints, /vhost/, 'nothing else to complain about');
    } finally {
      await server.close();
    }
  }));

test('QEMU as server: our back-end is restarted under the running machine', () =>
  withQemu(async ({ path, devices, options, boot }) => {
    const first = await VhostUserServer.connect(path, options);
    try {
      boot('server');
      await until(() => isUp(devices[0]), 'the boot ROM to start the rings', BOOT_MS);
    } finally {
      await first.close();
    }
    assert.ok(devices[0]!.isClosed);
    const second = await VhostUserServer.connect(path, options);
    try {
      await until(() => isUp(devices.at(-1)) && devices.length > 1, 'the rings to run again', BOOT_MS);
      assert.equal([...devices.at(-1)!.enabled], [0, 1]);
    } finally {
      await second.close();
    }
  }));

test.run();
