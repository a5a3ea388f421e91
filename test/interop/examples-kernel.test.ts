/** The examples that move packets between networks, with Linux at every end: learning switch, routes, load balancer, ping, tap. */

import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { icmpEchoPort } from '../../driver/backend/ports/built-in.js';
import { type CliEnd, type RunningCli, startCli } from '../support/cli.js';
import { GuestBackend } from '../support/guest-backend.js';
import { betweenKernels } from '../support/kernel-network.js';
import { skipWithout, skipWithoutRoot } from '../support/skip.js';
import { TapNamespace } from '../support/tap-namespace.js';
import { withFolder } from '../support/temp-folder.js';
import { uniqueName } from '../support/test-names.js';
import { countMatching } from '../support/tshark.js';

export const timeBoundSeconds = 180;

const test = skipWithoutRoot(skipWithout(suite('examples between kernels'), 'iproute2', 'ping', 'python3', 'tshark'));

const example = (name: string): string => fileURLToPath(new URL(`../../examples/${name}.js`, import.meta.url));
const PINGS = 20;
const BYTES = 2_000_000;

/** Ends an example as Ctrl-C does; it has to end well. */
async function endWell(cli: RunningCli): Promise<CliEnd> {
  cli.kill('SIGINT');
  const end = await cli.done;
  assert.is(end.status, 0, end.stderr);
  assert.equal(end.left, []);
  return end;
}

/** The number behind a name in what was printed. */
function numberOf(end: CliEnd, name: string): number {
  const [, number] = new RegExp(`${name} (\\d+)`).exec(end.stdout) ?? [];
  assert.ok(number !== undefined, `${name} is in: ${end.stdout}`);
  return Number(number);
}

test('l2-switch: kernels at three ports find each other; what is for one is not seen by the third', () =>
  betweenKernels(
    {
      script: example('l2-switch'),
      arguments: (ports) => ports,
      ready: /switching/,
      addresses: ['10.1.0.1', '10.1.0.2', '10.1.0.3'],
    },
    async ({ cli, spaces }) => {
      const [one, two, three] = spaces as [TapNamespace, TapNamespace, TapNamespace];
      const seenBefore = await received(three);
      assert.is(await one.ping(two.address, PINGS), PINGS);
      assert.is(await two.ping(one.address, PINGS), PINGS);
      const { sent, arrived } = await one.transfer(two, BYTES);
      assert.is(arrived, sent);
      const seen = (await received(three)) - seenBefore;
      assert.ok(seen < PINGS, `the third sees groups and the first packets alone, not ${seen}`);
      assert.is(await three.ping(one.address, PINGS), PINGS);
      const end = await endWell(cli);
      assert.ok(numberOf(end, 'directed') > 6 * PINGS && numberOf(end, 'flooded') > 0, end.stdout);
    },
  ));

/** Packets that the kernel has got by its tap. */
async function received(space: TapNamespace): Promise<number> {
  const [, count] = /RX:.*\n\s*\d+\s+(\d+)/.exec(await space.run('ip', '-s', 'link', 'show', 'type', 'tun')) ?? [];
  return Number(count);
}

test('l3fwd: three networks, the longest prefix wins, a hop is taken off, and bad packets are dropped', () =>
  betweenKernels(
    {
      script: example('l3fwd'),
      // The second kernel has all of 10.0.0.0/8 but what the third has.
      arguments: (ports) => [
        ...ports,
        ...['--route', '10.1.0.0/24=0,02:00:00:00:0a:00', '--route', '10.0.0.0/8=1,02:00:00:00:0a:01'],
        ...['--route', '10.1.2.128/25=2,02:00:00:00:0a:02'],
      ],
      ready: /routing/,
      addresses: ['10.1.0.1', '10.1.2.1', '10.1.2.129'],
    },
    async ({ cli, spaces }) => {
      for (const [number, space] of spaces.entries()) {
        const tap = space.link;
        await space.run('ip', 'link', 'set', tap, 'address', `02:00:00:00:0a:0${number}`);
        await space.run('ip', 'address', 'flush', 'dev', tap);
        await space.run('ip', 'address', 'add', `${space.address}/32`, 'dev', tap);
        await space.run('ip', 'neighbour', 'add', '10.255.255.254', 'lladdr', '02:00:00:00:0b:00', 'dev', tap);
        await space.run('ip', 'route', 'add', 'default', 'via', '10.255.255.254', 'dev', tap, 'onlink');
      }
      const [one, two, three] = spaces as [TapNamespace, TapNamespace, TapNamespace];
      assert.is(await one.ping(two.address, PINGS), PINGS);
      assert.is(await two.ping(three.address, PINGS), PINGS);
      assert.is(await three.ping(one.address, PINGS), PINGS);
      const { sent, arrived } = await one.transfer(three, BYTES);
      assert.is(arrived, sent);
      // Of 64 hops one is gone on the way there, and one on the way back.
      assert.match(await one.run('ping', '-c', '1', '-W', '5', three.address), /ttl=63/);
      // With one hop to live it does not get there; without, it has no route back.
      await assertLost(one, '-t', '1', three.address);
      await assertLost(one, '172.16.0.1');
      const end = await endWell(cli);
      assert.match(end.stdout, /route 10\.1\.2\.128\/25=2,\S+ {2}packets [1-9]/);
      assert.ok(numberOf(end, 'dropped') >= 2, end.stdout);
    },
  ));

/** A ping that nobody answers. */
async function assertLost(space: TapNamespace, ...args: readonly string[]): Promise<void> {
  let said = '';
  try {
    await space.run('ping', '-c', '1', '-W', '1', ...args);
  } catch (error) {
    said = (error as Error).message;
  }
  assert.match(said, /100% packet loss/);
}

test('load-balancer: kernels talk through its workers, and each flow keeps to one of them', () =>
  betweenKernels(
    {
      script: example('load-balancer'),
      arguments: (ports) => [...ports, '--workers', '3'],
      ready: /balancing/,
      addresses: ['10.3.0.1', '10.3.0.2'],
    },
    async ({ cli, spaces }) => {
      const [one, two] = spaces as [TapNamespace, TapNamespace];
      assert.is(await one.ping(two.address, PINGS), PINGS);
      for (let time = 0; time < 6; time++) {
        const { sent, arrived } = await one.transfer(two, BYTES / 4);
        assert.is(arrived, sent);
      }
      const end = await endWell(cli);
      const workers = [...end.stdout.matchAll(/worker \d {2}packets (\d+) {2}flows (\d+)/g)];
      assert.is(workers.length, 3);
      assert.ok(workers.filter(([, packets]) => Number(packets) > 0).length >= 2, end.stdout);
      // Six connections, each the same flow in both directions; the pings, and what has no ports: ARP, groups of IPv6.
      const flows = workers.reduce((sum, [, , count]) => sum + Number(count), 0);
      assert.ok(flows >= 8 && flows < 16, end.stdout);
    },
  ));

test('ping-responder: Linux gets an answer from any address, over IPv4 and IPv6', () =>
  betweenKernels(
    { script: example('ping-responder'), arguments: (ports) => ports, ready: /answering/, addresses: ['10.4.0.1'] },
    async ({ cli, spaces: [kernel] }) => {
      assert.is(await kernel!.ping('10.4.0.77', PINGS), PINGS);
      assert.is(await kernel!.ping('10.4.0.78', PINGS, '-s', '1472'), PINGS);
      const end = await endWell(cli);
      assert.ok(numberOf(end, 'answered') >= 2 * PINGS, end.stdout);
    },
  ));

test('capture: tshark reads what the kernel sent, whole and in order', () =>
  withFolder((folder) => {
    const path = join(folder, 'packets.pcap');
    return betweenKernels(
      {
        script: example('capture'),
        arguments: ([port = '']) => [port, path],
        ready: /capturing/,
        addresses: ['10.6.0.1'],
      },
      async ({ cli, spaces: [kernel] }) => {
        await kernel!.run('ip', 'neighbour', 'add', '10.6.0.9', 'lladdr', '02:00:00:00:00:09', 'dev', kernel!.link);
        await assertLost(kernel!, '-s', '1200', '10.6.0.9');
        const end = await endWell(cli);
        assert.ok(numberOf(end, 'received') > 0, end.stdout);
        const filter = 'icmp.type == 8 && ip.src == 10.6.0.1 && data.len == 1192 && icmp.checksum.status == 1';
        assert.is(await countMatching(path, filter, ['ip.check_checksum:TRUE']), 1);
      },
    );
  }));

test('tap-bridge: the kernel here and what is behind the port ping each other', async () => {
  const tap = uniqueName('tb');
  await using backend = await GuestBackend.start({ port: icmpEchoPort() });
  const cli = startCli([`vhost-user:${backend.path}`, tap], { script: example('tap-bridge') });
  let space: TapNamespace | undefined;
  try {
    await cli.printed(/bridging/);
    space = await TapNamespace.create(tap, '10.5.0.1');
    assert.is(await space.ping('10.5.0.9', PINGS), PINGS);
    assert.is(await space.ping('10.5.0.10', PINGS, '-s', '1472'), PINGS);
    const end = await endWell(cli);
    assert.ok(numberOf(end, 'to the kernel') >= 2 * PINGS, end.stdout);
  } finally {
    cli.kill('SIGKILL');
    await cli.done;
    await space?.close();
  }
});

test.run();
