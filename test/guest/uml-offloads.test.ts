/**
 * What the driver leaves to others, with a guest's kernel at the other end of a switch: UDP in fragments and segments, which the
 * guest takes as one packet or has cut for it, as it says by ethtool; and tags of its VLANs.
 */

import { setTimeout as delay } from 'node:timers/promises';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';

import { switchPort } from '../../driver/backend/ports/built-in.js';
import { PacketField, PacketFlag } from '../../driver/memory/packet-fields.js';
import type { Port } from '../../driver/net/port.js';
import { openPort } from '../../driver/open.js';
import { Feature } from '../../driver/spec/features.js';
import { GuestBackend } from '../support/guest-backend.js';
import { assertQuietKernel } from '../support/guest-checks.js';
import { sendUnfinished } from '../support/offload-packets.js';
import { skipWithout } from '../support/skip.js';
import { bootUml, type UmlGuest } from '../support/uml-guest.js';

export const timeBoundSeconds = 120;

const ETHTOOL = '/usr/sbin/ethtool';
const IP = '/usr/sbin/ip';
const test = skipWithout(suite('user-mode Linux, offloads'), 'uml', 'busybox', 'iproute2', 'ethtool');

const { FLAGS, VLAN_AND_PORT, WORDS } = PacketField;
const { SEGMENT_UDP, FRAGMENT_UDP, VLAN } = PacketFlag;
const PIECE = 1400;
const BYTES = 20_000;
const WAIT_MS = 30_000;
const payload = new Uint8Array(BYTES).map((_, at) => at * 31 + (at >>> 8));
const FRAGMENTS = Math.ceil((BYTES + 8) / PIECE);
const SEGMENTS = Math.ceil(BYTES / PIECE);

/** Datagrams that were whole and right, for a port that nobody listens at, and fragments that came. */
async function counters(
  guest: UmlGuest,
  version: 4 | 6,
): Promise<{ readonly datagrams: number; readonly fragments: number }> {
  const text = await guest.run('cat /proc/net/snmp /proc/net/snmp6');
  const of = (protocol: string, name: string): number => {
    if (version === 6) return Number(new RegExp(`^${protocol}6${name}\\s+(\\d+)$`, 'm').exec(text)?.[1]);
    const [names = [], values = []] = [...text.matchAll(new RegExp(`^${protocol}: (.*)$`, 'gm'))].map((line) =>
      line[1]!.split(' '),
    );
    return Number(values[names.indexOf(name)]);
  };
  return { datagrams: of('Udp', 'NoPorts'), fragments: of('Ip', 'ReasmReqds') };
}

/** Sends a long packet; resolves to what the guest's kernel has seen of it when it has seen enough. */
async function seen(
  guest: UmlGuest,
  port: Port,
  version: 4 | 6,
  flag: number,
  enough: number,
): Promise<readonly [number, number]> {
  const before = await counters(guest, version);
  assert.ok(sendUnfinished(port, { version, protocol: 'udp', payload }, flag | (PIECE << 16)));
  let after = before;
  for (const deadline = Date.now() + WAIT_MS; after.datagrams - before.datagrams < enough && Date.now() < deadline; ) {
    after = await counters(guest, version);
    await delay(20);
  }
  return [after.datagrams - before.datagrams, after.fragments - before.fragments];
}

test('UFO and USO: the guest gets what it takes, and what ethtool -K turns off is cut for it; VLAN tags, both ways', async () => {
  await using backend = await GuestBackend.start({ port: () => switchPort(), getsCommands: true });
  await using guest = await bootUml({
    cards: [backend.path],
    modules: ['virtio_net', 'ipv6', '8021q'],
    programs: [ETHTOOL, IP],
  });
  // The addresses of `packetOf`.
  await guest.run(`${IP} link set eth0 address 02:00:00:00:00:01 && ${IP} link set eth0 up
    echo 0 >/proc/sys/net/ipv4/icmp_ratelimit
    ${IP} address add 10.4.5.6/8 dev eth0 && ${IP} -6 address add 2001:db8::2/64 dev eth0 nodad
    ${IP} neigh replace 10.1.2.3 lladdr 02:00:00:00:00:02 dev eth0
    ${IP} -6 neigh replace 2001:db8::1 lladdr 02:00:00:00:00:02 dev eth0`);
  const features = await guest.run('cat /sys/class/net/eth0/device/features');
  assert.equal([features[Feature.GUEST_UFO], features[Feature.CTRL_GUEST_OFFLOADS]], ['1', '1']);
  const offloads = { txChecksum: true, uso: true, ufo: true, vlanInsert: true, vlanStrip: true };
  await using port = await openPort(`vhost-user:${backend.path}`, { offloads });
  await port.start();
  for (const name of ['uso', 'ufo']) assert.is(port.offloads.find((each) => each.name === name)?.by, 'device', name);

  for (const [isTaken, command] of [
    [true, ''],
    [false, `${ETHTOOL} -K eth0 rx-gro-hw off`],
    [true, `${ETHTOOL} -K eth0 rx-gro-hw on`],
  ] as const) {
    await guest.run(command);
    for (const version of [4, 6] as const) {
      const what = `IPv${version}, ${command}`;
      assert.equal(await seen(guest, port, version, FRAGMENT_UDP, 1), [1, isTaken ? 0 : FRAGMENTS], what);
      // Its kernel is older than USO: each segment is a datagram.
      assert.equal(await seen(guest, port, version, SEGMENT_UDP, SEGMENTS), [SEGMENTS, 0], what);
    }
  }

  await guest.run(`${IP} address flush dev eth0
    ${IP} link add link eth0 name eth0.5 type vlan id 5 && ${IP} link set eth0.5 up
    ${IP} address add 10.4.5.6/8 dev eth0.5 && ${IP} neigh replace 10.1.2.3 lladdr 02:00:00:00:00:02 dev eth0.5`);
  const burst = port.burst(32);
  assert.ok(sendUnfinished(port, { version: 4, protocol: 'udp', payload: payload.subarray(0, 10) }, VLAN, 5));

  const answers: number[][] = [];
  for (const deadline = Date.now() + WAIT_MS; answers.length === 0 && Date.now() < deadline; await delay(5)) {
    port.rxQueue(0).receive(burst);
    for (let index = 0; index < burst.count; index++) {
      const bytes = burst.bytes(index).copyPacket();
      const field = burst.handles[index]! * WORDS;
      // "Port unreachable", of this packet and of none before: ICMP right behind the headers of Ethernet and IPv4.
      if (bytes[12] !== 8 || bytes[13] !== 0 || bytes[23] !== 1 || bytes[34] !== 3 || bytes[45] !== 38) continue;
      answers.push([port.pool.fields[field + FLAGS]! & VLAN, port.pool.fields[field + VLAN_AND_PORT]! & 0xfff]);
    }
    burst.free();
  }
  assert.equal(answers, [[VLAN, 5]], 'the answer has the tag in its fields, and not in its bytes');

  for (const device of backend.devices) {
    for (const ring of [0, 1]) assert.is(device.statistics(ring).drops.offload, 0);
  }
  await assertQuietKernel(guest);
  assert.equal(backend.errors, []);
});

test.run();
