/** A virtual machine whose kernel leaves checksums and segments to us, and takes them from us, as its cards' options say. */

import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';

import type { RingStatistics } from '../../driver/backend/counters.js';
import { switchPort, switchUplinkPort } from '../../driver/backend/ports/built-in.js';
import { receiveqIndex, transmitqIndex } from '../../driver/spec/net-config.js';
import { runCommand, startCommand } from '../support/commands.js';
import { GuestBackend } from '../support/guest-backend.js';
import {
  assertQuietKernel,
  assertTransfers,
  bringUp,
  type Shell,
  sumOfBlocks,
  transferData,
} from '../support/guest-checks.js';
import { HostEnd } from '../support/guest-host-end.js';
import { bootGuest } from '../support/guest-machine.js';
import { GuestWire, WIRE_END } from '../support/guest-wire.js';
import { skipWithout, skipWithoutRoot } from '../support/skip.js';
import { uniqueName } from '../support/test-names.js';

export const timeBoundSeconds = 300;
export const fullTimeBoundSeconds = 3600;

const isFull = process.env['VIRTIO_PMD_FULL'] === '1';
const MEGABYTES = isFull ? 100 : 4;
/** The longest on the wire. */
const FRAME_BYTES = 1514;
const PORT = 7002;

/**
 * Which cards have an option off. The first has all on; of any two options there are cards with both off, and with either:
 * any two sets have a card in common, and none is within another.
 */
const OFF: Readonly<Record<string, readonly number[]>> = {
  csum: [1, 2, 3],
  'host_tso4,host_tso6,host_ecn': [1, 2, 4],
  guest_csum: [1, 2, 5],
  guest_tso4: [1, 3, 4],
  guest_tso6: [1, 3, 5],
  mrg_rxbuf: [1, 4, 5],
};
const CARDS = [0, 1, 2, 3, 4, 5];

const isOn = (option: string, card: number): boolean => !OFF[option]!.includes(card);
const propertiesOf = (card: number): string[] =>
  Object.keys(OFF).flatMap((options) =>
    options.split(',').map((option) => `${option}=${isOn(options, card) ? 'on' : 'off'}`),
  );
/** Each card is in a network of its own, so that its packets go through it and through no other. */
const network = (card: number): string => `10.77.${100 + card}.`;

const needs = ['qemu', 'kernel', 'busybox', 'iproute2', 'ethtool', 'tcpdump'] as const;
const test = skipWithoutRoot(skipWithout(suite('virtual machine, offloads'), ...needs));

/** The features of a card as its driver sees them: `tx-checksumming: on`. */
function assertDriverHas(list: string, card: number): void {
  const said = (feature: string): string => new RegExp(`^\\s*${feature}: (on|off)`, 'm').exec(list)?.[1] ?? 'none';
  const expected = (isTrue: boolean): string => (isTrue ? 'on' : 'off');
  const checksums = isOn('csum', card);
  assert.is(said('tx-checksum-ip-generic'), expected(checksums), `card ${card}: ${list}`);
  const segments = checksums && isOn('host_tso4,host_tso6,host_ecn', card);
  assert.is(said('tx-tcp-segmentation'), expected(segments), `card ${card}: ${list}`);
  assert.is(said('tx-tcp6-segmentation'), expected(segments), `card ${card}: ${list}`);
  const takesLong = isOn('guest_tso4', card) || isOn('guest_tso6', card);
  assert.is(said('rx-gro-hw'), expected(takesLong), `card ${card}: ${list}`);
}

/** Fetches a file over TCP that its sender hands to its kernel in pieces of many packets; fails where it is not the same. */
async function assertDownloads(from: Shell, address: string, to: Shell): Promise<void> {
  await from.run(
    `www=$(dirname "\${DATA:-/data}")/www; [ -d $www ] && exit 0; mkdir $www
     for i in $(seq ${MEGABYTES}); do cat "\${DATA:-/data}" || exit 1; done >$www/file; httpd -p ${PORT} -h $www`,
    { timeoutMs: 60_000 },
  );
  const sum = await to.run(`wget -q -O - http://${address}:${PORT}/file | md5sum`, { timeoutMs: 300_000 });
  assert.is(sum.split(' ')[0], sumOfBlocks(MEGABYTES));
}

/** Bytes of a packet in the mean. */
const meanOf = (before: RingStatistics, after: RingStatistics): number =>
  Math.round((after.bytes - before.bytes) / (after.packets - before.packets));

test('TCP each way with each pair of options on and off: the same bytes arrive, in packets with right checksums', async () => {
  const folder = mkdtempSync(join(tmpdir(), 'q-'));
  const tap = uniqueName('go');
  try {
    await using backend = await GuestBackend.start({
      port: () => switchPort(),
      uplink: switchUplinkPort({ tap: { name: tap } }),
    });
    await using guest = await bootGuest({
      cards: CARDS.map((card) => ({ path: backend.path, properties: propertiesOf(card) })),
      files: { data: transferData() },
      hostRoot: true,
      // Its files are in memory, of which they may take half.
      memoryMb: 256 + 4 * MEGABYTES,
    });
    const wire = await GuestWire.create(
      tap,
      CARDS.map((card) => `${network(card)}254`),
    );
    await using host = HostEnd.in(wire);
    // An address is the business of the card that has it.
    await guest.run('echo 1 >/proc/sys/net/ipv4/conf/all/arp_ignore; echo 2 >/proc/sys/net/ipv4/conf/all/arp_announce');
    for (const card of CARDS) {
      const name = `eth${card}`;
      const [address, hostAddress] = [`${network(card)}1`, `${network(card)}254`];
      await bringUp(guest, address, name);
      assertDriverHas(await guest.run(`chroot /host /usr/sbin/ethtool -k ${name}`), card);
      const device = backend.devices[card]!;
      const sentBefore = device.statistics(transmitqIndex(0));
      await assertDownloads(guest, address, host);
      const sent = meanOf(sentBefore, device.statistics(transmitqIndex(0)));
      const receivedBefore = device.statistics(receiveqIndex(0));
      await assertDownloads(host, hostAddress, guest);
      const received = meanOf(receivedBefore, device.statistics(receiveqIndex(0)));
      console.log(`card ${card}: packets of ${sent} bytes sent, ${received} received`);
      assert.is(sent > FRAME_BYTES, isOn('csum', card) && isOn('host_tso4,host_tso6,host_ecn', card), `sent: ${sent}`);
      const takesLong = isOn('guest_csum', card) && isOn('guest_tso4', card);
      assert.is(received > FRAME_BYTES, takesLong, `received: ${received}`);
    }
    await wire.expose();
    const capture = join(folder, 'wire.pcap');
    const listener = ['netns', 'exec', wire.name, 'tcpdump', '-i', WIRE_END, '-U', '-w', capture];
    const dump = await startCommand('ip', listener, /listening on/);
    for (const card of CARDS) {
      await assertTransfers(guest, host, `${network(card)}254`, 1);
      await assertTransfers(host, guest, `${network(card)}1`, 1);
      for (const ring of [receiveqIndex(0), transmitqIndex(0)])
        assert.is(backend.devices[card]!.statistics(ring).drops.offload, 0);
    }
    await dump.stop();
    assert.is(await wire.badChecksums(), 0);
    const packets = await runCommand('tcpdump', ['-nnvr', capture, 'tcp'], { timeoutMs: 60_000 });
    assert.ok(packets.split('cksum').length > 5000, 'there is a capture');
    assert.not.match(packets, /incorrect|bad cksum/);
    await assertQuietKernel(guest);
    assert.equal(backend.errors, []);
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
});

test.run();
