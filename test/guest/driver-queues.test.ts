/** Single queues of QEMU's own device, driven in a guest: stopped, resized and started in mid-traffic (virtio 1.2 §2.6, RING_RESET). */

import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';

import { DRIVER_MODULES, makeHugepages, runCli } from '../support/guest-driver.js';
import { bootGuest } from '../support/guest-machine.js';
import type { QueuesProgramResult } from '../support/guest-queues-program.js';
import { skipWithout } from '../support/skip.js';
import { streamEcho } from '../support/stream-peer.js';

const test = skipWithout(suite('single queues of a device in a guest'), 'qemu', 'kernel', 'busybox');
const full = process.env['VIRTIO_PMD_FULL'] === '1';
export const timeBoundSeconds = 400;
const HUGEPAGES = 48;
const ROUNDS = full ? 20 : 4;
const PINGS = 20;
const PROGRAM = fileURLToPath(new URL('../support/guest-queues-program.js', import.meta.url));

const CARDS = [
  { name: 'split', ring: 'split', resets: true, address: '0000:00:0a.0', properties: 'addr=0xa,queue_reset=on' },
  {
    name: 'packed',
    ring: 'packed',
    resets: true,
    address: '0000:00:0b.0',
    properties: 'addr=0xb,packed=on,queue_reset=on',
  },
  { name: 'without', ring: 'split', resets: false, address: '0000:00:0c.0', properties: 'addr=0xc,queue_reset=off' },
] as const;
const ALL_CARDS = 'disable-legacy=on,iommu_platform=on';

/** Sizes that the rings of a card have, in turn: of both queues in each round. */
const sizesOf = ({ ring, resets }: (typeof CARDS)[number]): number[] =>
  Array.from({ length: ROUNDS }, (_, round) => {
    if (!resets) return 256;
    return ring === 'packed' ? 250 - round : 256 >>> [2, 0, 3, 1][round % 4]!;
  }).flatMap((size) => [size, size]);

test('receive and transmit queue, split and packed, with interrupts and behind an IOMMU: reset, resized, and packets go round again; without RING_RESET they keep their size', async () => {
  const folder = mkdtempSync(join(tmpdir(), 'q-'));
  const peers = await Promise.all(CARDS.map(({ name }) => streamEcho(join(folder, name))));
  try {
    await using guest = await bootGuest({
      iommu: true,
      hostRoot: true,
      memoryMb: 768,
      modules: DRIVER_MODULES,
      arguments: CARDS.flatMap(({ name, properties }, index) => [
        ...peers[index]!.netdev(name),
        ...['-device', `virtio-net-pci,netdev=${name},id=card-${name},romfile=,${ALL_CARDS},${properties}`],
      ]),
    });
    await makeHugepages(guest, HUGEPAGES);
    const bound = await runCli(guest, 'devbind', '--bind', 'vfio-pci', ...CARDS.map(({ address }) => address));
    assert.is(bound.status, 0, bound.output);
    for (const card of CARDS) {
      const { address, ring, resets } = card;
      const words = `${process.execPath} --enable-source-maps ${PROGRAM} ${address} '{"ring":"${ring}"}' ${ROUNDS}`;
      const { status, output } = await guest.tryRun(`chroot /host ${words} 2>&1`, { timeoutMs: 200_000 });
      assert.is(status, 0, `${output}\n${guest.console}`);
      const line = output.split('\n').find((each) => each.startsWith('{'))!;
      const { features, sizes, ...result } = JSON.parse(line) as QueuesProgramResult;
      assert.is(features.includes('RING_RESET'), resets, `${features}`);
      assert.is(features.includes('RING_PACKED'), ring === 'packed');
      assert.equal(sizes, sizesOf(card));
      const refused = resets ? 0 : 2 * ROUNDS;
      assert.equal(result, { pings: (1 + 2 * ROUNDS) * PINGS, missing: 0, taken: 0, refused, closed: true });
    }
    assert.not.match(await guest.run('dmesg'), /DMAR:.*fault|BUG:|Call Trace/i);
  } finally {
    for (const peer of peers) await peer[Symbol.asyncDispose]();
    rmSync(folder, { recursive: true });
  }
});

test.run();
