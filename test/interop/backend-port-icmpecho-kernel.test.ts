/** The Linux kernel pings the icmpecho port, for any address: a tap in a network namespace on one side, the port on the other. */

import { setTimeout as sleep } from 'node:timers/promises';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { icmpEchoPort } from '../../driver/backend/ports/built-in.js';
import * as icmpecho from '../../driver/backend/ports/icmpecho.js';
import * as tap from '../../driver/backend/ports/tap.js';
import { PortHarness } from '../support/backend-port-harness.js';
import { skipWithout, skipWithoutRoot } from '../support/skip.js';
import { TapNamespace } from '../support/tap-namespace.js';
import { uniqueName } from '../support/test-names.js';
import { until } from '../support/until.js';

const test = skipWithoutRoot(skipWithout(suite('icmpecho port, Linux'), 'iproute2', 'ping'));

type Statistics = ReturnType<ReturnType<typeof icmpEchoPort>['statistics']>;

/** Has a kernel and the port exchange packets while `body` runs. */
async function withKernel(body: (space: TapNamespace, name: string, counts: () => Statistics) => Promise<void>) {
  const name = uniqueName('te');
  const spec = icmpEchoPort();
  using kernel = new PortHarness(tap, { name }, { poolSize: 1024 });
  using port = new PortHarness(icmpecho, spec.options, { poolSize: 1024 });
  const space = await TapNamespace.create(name, '192.0.2.1', 9000);
  let failure: unknown;
  const exchange = (): void => {
    try {
      kernel.give(port.bounce(kernel.turn()));
    } catch (error) {
      failure ??= error;
    }
  };
  const timer = setInterval(exchange, 1);
  try {
    await body(space, name, () => spec.statistics());
  } finally {
    clearInterval(timer);
    await space.close();
  }
  if (failure !== undefined) throw failure;
}

const ping = (space: TapNamespace, ...args: readonly string[]): Promise<string> =>
  space.run('ping', '-i', '0.01', '-W', '5', '-w', '20', ...args);

/** Pings ten times, or until ten answers are in: one that is late brings another request. Returns how many were sent. */
async function tenPings(space: TapNamespace, ...args: readonly string[]): Promise<number> {
  const said = await ping(space, '-c', '10', ...args);
  const [, sent, received] = /(\d+) packets transmitted, (\d+) received/.exec(said) ?? [];
  assert.ok(Number(received) >= 10, said);
  return Number(sent);
}

test('it is found and answers, of any length, over IPv4 and IPv6; the kernel keeps its own addresses', () =>
  withKernel(async (space, name, counts) => {
    await space.run('ip', 'address', 'add', '2001:db8::1/64', 'dev', name);
    const sent = { icmp: 0, icmpv6: 0 };
    for (const [address, ...args] of [
      ['192.0.2.77'],
      ['192.0.2.254', '-s', '0'],
      ['192.0.2.3', '-s', '1472'],
      ['192.0.2.3', '-s', '8972', '-M', 'do'],
      // With options: record route.
      ['192.0.2.4', '-R'],
    ] as const) {
      sent.icmp += await tenPings(space, ...args, address);
    }
    // Until duplicate address detection is over: an answer to it would take the address away.
    for (let left = 200; left > 0; left--) {
      if (!(await space.run('ip', '-6', 'address', 'show', 'dev', name)).includes('tentative')) break;
      await sleep(50);
    }
    const addresses = await space.run('ip', '-6', 'address', 'show', 'dev', name);
    assert.not.match(addresses, /tentative|dadfailed/);
    assert.match(addresses, /2001:db8::1/);
    assert.match(addresses, /fe80::/);
    for (const [address, ...args] of [
      ['2001:db8::77'],
      ['2001:db8::78', '-s', '8952', '-M', 'do'],
      [`fe80::1%${name}`, '-s', '3'],
    ] as const) {
      sent.icmpv6 += await tenPings(space, '-6', ...args, address);
    }
    const neighbours = await space.run('ip', 'neighbour', 'show', 'dev', name);
    for (const address of ['192.0.2.77', '2001:db8::77', 'fe80::1']) {
      assert.match(neighbours, new RegExp(`^${address} .*lladdr 02:00:00:00:00:02`, 'm'));
    }
    // The last request may still be under way.
    await until(() => counts().icmp >= sent.icmp && counts().icmpv6 >= sent.icmpv6, 'all requests');
    const { arp, icmp, neighbour, icmpv6, dropChecksum, dropMalformed, dropProbe } = counts();
    assert.equal({ icmp, icmpv6, dropChecksum, dropMalformed }, { ...sent, dropChecksum: 0, dropMalformed: 0 });
    assert.ok(arp >= 4 && neighbour >= 3 && dropProbe >= 2, JSON.stringify(counts()));
  }));

test('a ping to a group is answered from an address that can answer', () =>
  withKernel(async (space, name) => {
    const said = await ping(space, '-c', '3', '-I', name, '224.0.0.1');
    assert.match(said, /64 bytes from 192\.0\.2\.2: icmp_seq=1/);
    for (let left = 200; left > 0; left--) {
      if (!(await space.run('ip', '-6', 'address', 'show', 'dev', name)).includes('tentative')) break;
      await sleep(50);
    }
    assert.match(await ping(space, '-6', '-c', '3', `ff02::1%${name}`), /from fe80::ff:fe00:2/);
  }));

test.run();
