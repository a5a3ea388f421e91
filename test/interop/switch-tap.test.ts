/** The switch between kernels: two taps, each in a network namespace, as its members. */

import { readdirSync } from 'node:fs';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { DeviceThread } from '../../driver/backend/device-thread.js';
import { NetDevice } from '../../driver/backend/net-device.js';
import { switchUplinkPort } from '../../driver/backend/ports/built-in.js';
import type { SwitchUplinkOptions } from '../../driver/backend/ports/switch-uplink.js';
import { createSwitchFabric } from '../../driver/backend/switch/fabric.js';
import { TapOffload } from '../../native/index.js';
import { skipWithout, skipWithoutRoot } from '../support/skip.js';
import { TapNamespace } from '../support/tap-namespace.js';
import { uniqueName } from '../support/test-names.js';

export const timeBoundSeconds = 120;

const test = skipWithoutRoot(skipWithout(suite('switch between taps'), 'iproute2', 'ping', 'python3'));

type Statistics = ReturnType<ReturnType<typeof switchUplinkPort>['statistics']>;

interface Kernels {
  readonly spaces: readonly TapNamespace[];
  statistics(member: number): Statistics;
}

/** Runs `body` with as many namespaces as there are options, their taps being members of one switch. */
async function withKernels(
  members: readonly Partial<SwitchUplinkOptions & { mtu: number; offloads: number }>[],
  body: (kernels: Kernels) => Promise<void>,
  threadCount = 1,
): Promise<void> {
  const threads: DeviceThread[] = [];
  for (let thread = 0; thread < threadCount; thread++) threads.push(await DeviceThread.start());
  const fabric = threadCount === 1 ? undefined : createSwitchFabric(threadCount);
  const ports: ReturnType<typeof switchUplinkPort>[] = [];
  const devices: NetDevice[] = [];
  const spaces: TapNamespace[] = [];
  try {
    for (const [index, { mtu, offloads, ...options }] of members.entries()) {
      const tap = uniqueName('tp');
      const port = switchUplinkPort({ ...options, fabric, tap: { name: tap, offloads } });
      ports.push(port);
      const device = new NetDevice(threads[index % threadCount]!, { port });
      devices.push(device);
      await device.ready();
      spaces.push(await TapNamespace.create(tap, `198.51.100.${index + 1}`, mtu));
    }
    await body({ spaces, statistics: (member) => ports[member]!.statistics() });
  } finally {
    for (const device of devices) await device.close();
    for (const thread of threads) await thread.stop();
    for (const space of spaces) await space.close();
  }
}

test('ARP and ping from one to the other, both ways; the switch learns where they are', () =>
  withKernels([{}, {}, {}], async ({ spaces, statistics }) => {
    const [first, second] = spaces as [TapNamespace, TapNamespace];
    for (const [from, to] of [
      [first, second],
      [second, first],
    ] as const) {
      assert.is(await from.ping(to.address, 20), 20);
    }
    const neighbours = await first.run('ip', 'neighbour', 'show', second.address);
    assert.match(neighbours, new RegExp(`lladdr ${await second.macAddress()}`));
    // Echo requests and replies are not flooded: only what goes to groups is.
    const third = statistics(2);
    assert.ok(third.sent < 40, `the third sees broadcasts and multicasts alone, not ${third.sent} packets`);
    assert.ok(statistics(0).received >= 40 && statistics(1).received >= 40);
    for (const member of [0, 1, 2]) {
      const { moves, dropNotTaken, dropNoBuffer } = statistics(member);
      assert.equal({ moves, dropNotTaken, dropNoBuffer }, { moves: 0, dropNotTaken: 0, dropNoBuffer: 0 });
    }
  }));

test('10 MB over TCP arrive as they were sent, both ways', () =>
  withKernels([{}, {}], async ({ spaces }) => {
    const [first, second] = spaces as [TapNamespace, TapNamespace];
    const there = await first.transfer(second, 10_000_000);
    assert.is(there.arrived, there.sent);
    const back = await second.transfer(first, 10_000_000);
    assert.is(back.arrived, back.sent);
  }));

test('frames larger than a buffer: TCP with an MTU of 9000', () =>
  withKernels([{ mtu: 9000 }, { mtu: 9000 }], async ({ spaces, statistics }) => {
    const [first, second] = spaces as [TapNamespace, TapNamespace];
    assert.is(await first.ping(second.address, 3, '-M', 'do', '-s', '8972'), 3);
    const { sent, arrived } = await first.transfer(second, 10_000_000);
    assert.is(arrived, sent);
    assert.ok(statistics(0).received < 10_000_000 / 4000, `large frames: ${statistics(0).received}`);
  }));

test('offloads pass through: segments of up to 64 KiB and unfinished checksums between two taps that take them', () => {
  const offloads = TapOffload.CHECKSUM | TapOffload.TSO4 | TapOffload.TSO6;
  return withKernels([{ offloads }, { offloads }], async ({ spaces, statistics }) => {
    const [first, second] = spaces as [TapNamespace, TapNamespace];
    const { sent, arrived } = await first.transfer(second, 20_000_000);
    assert.is(arrived, sent);
    const { received } = statistics(0);
    assert.ok(
      received < 20_000_000 / 3000,
      `20 MB in ${received} packets, fewer than half of what 1448 bytes each make`,
    );
  });
});

test('members on two poll threads: ping and 10 MB over TCP both ways, segments left to the receiver', () => {
  const offloads = TapOffload.CHECKSUM | TapOffload.TSO4 | TapOffload.TSO6;
  return withKernels(
    [{ offloads }, { offloads }, {}],
    async ({ spaces, statistics }) => {
      const [first, second, third] = spaces as [TapNamespace, TapNamespace, TapNamespace];
      for (const [from, to] of [
        [first, second],
        [third, second],
        [first, third],
      ] as const) {
        assert.is(await from.ping(to.address, 10), 10);
      }
      const there = await first.transfer(second, 10_000_000);
      assert.is(there.arrived, there.sent);
      const back = await second.transfer(third, 10_000_000);
      assert.is(back.arrived, back.sent);
      for (const member of [0, 1, 2]) assert.is(statistics(member).moves, 0);
    },
    2,
  );
});

test('members of different access VLANs are apart', () =>
  withKernels([{ vlan: 10 }, { vlan: 10 }, { vlan: 20 }], async ({ spaces, statistics }) => {
    const [first, second, third] = spaces as [TapNamespace, TapNamespace, TapNamespace];
    assert.is(await first.ping(second.address, 3), 3);
    assert.is(await first.ping(third.address, 2, '-w', '2'), 0);
    assert.is(statistics(2).sent, 0, 'nothing of VLAN 10 goes to VLAN 20');
  }));

test('taps are gone with their devices', async () => {
  const tap = uniqueName('tp');
  const thread = await DeviceThread.start();
  try {
    const device = new NetDevice(thread, { port: switchUplinkPort({ tap: { name: tap } }) });
    await device.ready();
    assert.ok(readdirSync('/sys/class/net').includes(tap));
    const second = new NetDevice(thread, { port: switchUplinkPort({ tap: { name: tap } }) });
    const refusal = await second.ready().then(
      () => 'made',
      (error: { toLine(): string }) => error.toLine(),
    );
    assert.match(refusal, /^IN_USE: the tap interface \w+ cannot be opened: another program has it/);
    await second.close();
    await device.close();
    assert.not.ok(readdirSync('/sys/class/net').includes(tap));
  } finally {
    await thread.stop();
  }
});

test.run();
