/**
 * User-mode Linux as front-end for what QEMU keeps to itself: receive modes, addresses, VLANs, RSS table and key, and
 * coalescing, set by the kernel's own tools (virtio 1.2 §5.1.6.5; spec-E17, spec-E18).
 */

import { setTimeout as delay } from 'node:timers/promises';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';

import type { RingStatistics } from '../../driver/backend/counters.js';
import type { NetDevice } from '../../driver/backend/net-device.js';
import type { BackendPortSpec } from '../../driver/backend/ports/backend-port.js';
import { echoPort, icmpEchoPort } from '../../driver/backend/ports/built-in.js';
import { Feature } from '../../driver/spec/features.js';
import { address4, HASH_KEY, referenceHash } from '../support/flow-packets.js';
import { GuestBackend } from '../support/guest-backend.js';
import { ANYBODY, assertPings, assertQuietKernel, bringUp, NETWORK } from '../support/guest-checks.js';
import { skipWithout } from '../support/skip.js';
import { bootUml, type UmlGuest } from '../support/uml-guest.js';

export const timeBoundSeconds = 300;

const PAIRS = 2;
/** Bytes of a ping's data, and of its packet: the kernel says nothing as long on its own account. */
const PING_BYTES = 1000;
const PING_PACKET_BYTES = PING_BYTES + 42;
const ETHTOOL = '/usr/sbin/ethtool';
const IP = '/usr/sbin/ip';
const BRIDGE = '/usr/sbin/bridge';
const test = skipWithout(suite('user-mode Linux, control queue'), 'uml', 'busybox', 'iproute2', 'ethtool');

async function withGuest(
  port: BackendPortSpec,
  body: (guest: UmlGuest, device: NetDevice) => Promise<void>,
): Promise<void> {
  await using backend = await GuestBackend.start({ port, queuePairs: PAIRS, getsCommands: true });
  await using guest = await bootUml({
    cards: [backend.path],
    modules: ['virtio_net', 'ipv6', '8021q'],
    programs: [ETHTOOL, IP, BRIDGE],
  });
  await bringUp(guest, `${NETWORK}1`);
  await body(guest, backend.device);
  // The kernel says so where a command is refused.
  await assertQuietKernel(guest);
  assert.equal(backend.errors, []);
}

const toGuest = (device: NetDevice, pair: number): RingStatistics => device.statistics(2 * pair);

test('RSS: ethtool shows table and key, and sets them; each flow comes where its hash says', () =>
  withGuest(icmpEchoPort(), async (guest, device) => {
    await guest.run(`${ETHTOOL} -L eth0 combined ${PAIRS}`);
    await assertPings(guest, ANYBODY);
    const features = await guest.run('cat /sys/class/net/eth0/device/features');
    for (const feature of [Feature.RSS, Feature.HASH_REPORT, Feature.NOTF_COAL]) assert.is(features[feature], '1');

    await guest.run(`${ETHTOOL} -X eth0 weight 0 1`);
    assert.is(
      (await shownTable(guest)).every((queue) => queue === 1),
      true,
    );
    const before = toGuest(device, 1).packets;
    await assertPings(guest, ANYBODY, { count: 4 });
    assert.is(toGuest(device, 1).packets - before, 4, 'every answer in the second queue');

    for (const key of [HASH_KEY, HASH_KEY.toReversed()]) {
      const text = Buffer.from(key)
        .toString('hex')
        .replace(/..(?!$)/g, '$&:');
      await guest.run(`${ETHTOOL} -X eth0 equal ${PAIRS} hkey ${text}`);
      assert.match(await guest.run(`${ETHTOOL} -x eth0`), text);
      const table = await shownTable(guest);
      let expected = 0;
      const start = toGuest(device, 1).packets;
      for (let host = 200; host < 208; host++) {
        await assertPings(guest, `${NETWORK}${host}`, { count: 1 });
        const input = [...address4(`${NETWORK}${host}`), ...address4(`${NETWORK}1`)];
        if (table[referenceHash(key, input) & (table.length - 1)] === 1) expected += 1;
      }
      assert.is(toGuest(device, 1).packets - start, expected, `flows of the second queue under ${text}`);
    }
  }));

test('rx-flow-hash: ethtool shows what TCP is hashed by, and sets it; connections come where that hash says', () =>
  withGuest(echoPort(), async (guest, device) => {
    const own = (await guest.run('cat /sys/class/net/eth0/address')).trim();
    const target = `${NETWORK}99`;
    await guest.run(`echo 1 >/proc/sys/net/ipv6/conf/eth0/disable_ipv6
      ${ETHTOOL} -L eth0 combined ${PAIRS}
      ${ETHTOOL} -K eth0 rxhash on
      ${ETHTOOL} -X eth0 equal ${PAIRS} hkey ${Buffer.from(HASH_KEY)
        .toString('hex')
        .replace(/..(?!$)/g, '$&:')}
      ${IP} neigh replace ${target} lladdr ${own} dev eth0`);
    const table = await shownTable(guest);
    const addresses = [...address4(`${NETWORK}1`), ...address4(target)];
    const queueOf = (input: readonly number[]): number => table[referenceHash(HASH_KEY, input) & (table.length - 1)]!;
    const ports = Array.from({ length: 12 }, (_, index) => 4000 + index);
    const byPorts = (port: number): number => queueOf([...addresses, port >>> 8, port & 0xff, 0, 9]);
    assert.equal(new Set(ports.map(byPorts)).size, 2, 'ports of either queue');
    for (const [fields, shown, queue] of [
      ['sd', /IP SA\nIP DA\n(?!L4)/, () => queueOf(addresses)],
      ['sdfn', /L4 bytes 0 & 1.*\nL4 bytes 2 & 3/, byPorts],
      ['sd', /IP SA\nIP DA\n(?!L4)/, () => queueOf(addresses)],
    ] as const) {
      await guest.run(`${ETHTOOL} -N eth0 rx-flow-hash tcp4 ${fields}`);
      assert.match(await guest.run(`${ETHTOOL} -n eth0 rx-flow-hash tcp4`), shown);
      for (const wanted of [0, 1]) {
        const own = ports.filter((port) => queue(port) === wanted);
        const before = [0, 1].map((pair) => toGuest(device, pair).packets);
        // Nobody answers: what comes back is the first packet of each, and those that are sent again. A connection has the
        // one port that there is when it begins.
        await guest.run(`for port in ${own.join(' ')}; do
            echo $port $port >/proc/sys/net/ipv4/ip_local_port_range
            nc -w 1 ${target} 9 </dev/null & usleep 100000
          done; wait; true`);
        await delay(50);
        const came = [0, 1].map((pair) => toGuest(device, pair).packets - before[pair]!);
        assert.ok(came[wanted]! >= own.length, `${came} by ${fields}, ${own.length} of queue ${wanted}`);
        assert.is(came[1 - wanted], 0, `${came} by ${fields}, ${own.length} of queue ${wanted}`);
      }
    }
  }));

/** The indirection table that the kernel has set. */
async function shownTable(guest: UmlGuest): Promise<number[]> {
  const lines = (await guest.run(`${ETHTOOL} -x eth0`)).match(/^ *\d+:( +\d+)+$/gm) ?? [];
  return lines.flatMap((line) => line.split(':')[1]!.trim().split(/ +/).map(Number));
}

test('receive modes, MAC table, VLANs, address and coalescing: what comes back is what the kernel asked for', () =>
  withGuest(echoPort(), async (guest, device) => {
    /** Sends three packets to an address; returns how many of them come back. */
    const comesBack = async (to: string, card = 'eth0'): Promise<number> => {
      const target = card === 'eth0' ? `${NETWORK}99` : '10.78.0.99';
      await guest.run(`${IP} neigh replace ${target} lladdr ${to} dev ${card}`);
      const before = toGuest(device, 0).bytes;
      await guest.tryRun(`ping -c 3 -i 0.1 -W 1 -s ${PING_BYTES} ${target}`);
      // Counters of a poll thread are seen some turns later.
      await delay(50);
      return Math.floor((toGuest(device, 0).bytes - before) / PING_PACKET_BYTES);
    };
    const { drops: first } = toGuest(device, 0);
    assert.is(await comesBack('02:00:00:00:00:99'), 0, 'for somebody else');
    assert.is(toGuest(device, 0).drops.filterUnicast - first.filterUnicast, 3);
    await guest.run(`${IP} link set eth0 promisc on`);
    assert.is(await comesBack('02:00:00:00:00:99'), 3, 'promiscuous');
    await guest.run(`${IP} link set eth0 promisc off`);

    await guest.run(`${BRIDGE} fdb add 02:00:00:00:00:99 dev eth0 self permanent`);
    assert.is(await comesBack('02:00:00:00:00:99'), 3, 'in the table of stations');
    assert.is(await comesBack('02:00:00:00:00:98'), 0, 'the one before is not');
    await guest.run(`${BRIDGE} fdb del 02:00:00:00:00:99 dev eth0 self`);
    assert.is(await comesBack('02:00:00:00:00:99'), 0, 'not any more');

    assert.is(await comesBack('01:00:5e:07:07:07'), 0, 'a group that it is not in');
    await guest.run(`${IP} maddr add 01:00:5e:07:07:07 dev eth0`);
    assert.is(await comesBack('01:00:5e:07:07:07'), 3, 'in the table');
    assert.is(await comesBack('01:00:5e:07:07:08'), 0, 'the next one is not');
    await guest.run(`${IP} maddr del 01:00:5e:07:07:07 dev eth0`);
    assert.is(await comesBack('01:00:5e:07:07:07'), 0, 'not any more');
    await guest.run(`${IP} link set eth0 allmulticast on`);
    assert.is(await comesBack('01:00:5e:07:07:07'), 3, 'all groups');
    await guest.run(`${IP} link set eth0 allmulticast off`);

    const own = (await guest.run('cat /sys/class/net/eth0/address')).trim();
    await guest.run(`${IP} link add link eth0 name eth0.5 type vlan id 5 && ${IP} link set eth0.5 up`);
    await guest.run(`${IP} address add 10.78.0.1/24 dev eth0.5`);
    assert.is(await comesBack(own, 'eth0.5'), 3, 'a VLAN that was added');
    assert.is(await comesBack('02:00:00:00:00:99', 'eth0.5'), 0);

    await guest.run(
      `${IP} link set eth0 down && ${IP} link set eth0 address 02:00:00:00:00:77 && ${IP} link set eth0 up`,
    );
    await guest.run(
      `for i in $(seq 100); do [ "$(cat /sys/class/net/eth0/carrier)" = 1 ] && exit 0; usleep 50000; done`,
    );
    assert.equal([...device.config.subarray(0, 6)], [2, 0, 0, 0, 0, 0x77], 'spec-E17');
    assert.is(await comesBack('02:00:00:00:00:77'), 3, 'its new address');

    const calls = toGuest(device, 0).callsSent;
    await guest.run(`${ETHTOOL} -C eth0 rx-usecs 300000 rx-frames 100 tx-frames 1`);
    assert.match(await guest.run(`${ETHTOOL} -c eth0`), /rx-usecs: 300000\nrx-frames: 100/);
    assert.is(await comesBack('02:00:00:00:00:77'), 3);
    const told = toGuest(device, 0).callsSent - calls;
    assert.ok(told <= 2, `told ${told} times of three packets 100 ms apart`);
  }));

test.run();
