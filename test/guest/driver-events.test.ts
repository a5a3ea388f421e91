/** Events of QEMU's own devices in a guest: link, announcement, MTU, receive interrupts of each kind, and unplugging. */

import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';

import { DRIVER_MODULES, makeHugepages, runCli } from '../support/guest-driver.js';
import { EventsProgram } from '../support/guest-events.js';
import { bootGuest, type Guest } from '../support/guest-machine.js';
import { skipWithout } from '../support/skip.js';
import { streamEcho } from '../support/stream-peer.js';

const test = skipWithout(suite('events of devices in a guest'), 'qemu', 'kernel', 'busybox');
const full = process.env['VIRTIO_PMD_FULL'] === '1';
export const timeBoundSeconds = 900;
const HUGEPAGES = 48;
const FLAPS = full ? 20 : 3;

interface Card {
  readonly name: string;
  readonly address: string;
  readonly properties: string;
  readonly options: Readonly<Record<string, unknown>>;
  readonly interrupts: string;
}

/** The first is behind a port that devices can be unplugged from. */
const CARDS: readonly Card[] = [
  {
    name: 'pluggable',
    address: '0000:01:00.0',
    properties: 'bus=rp0,iommu_platform=on,host_mtu=1400',
    options: {},
    interrupts: 'msix',
  },
  {
    name: 'line',
    address: '0000:00:0a.0',
    properties: 'addr=0xa,disable-legacy=on,vectors=0',
    options: {},
    interrupts: 'intx',
  },
  {
    name: 'legacy',
    address: '0000:00:0b.0',
    properties: 'addr=0xb,disable-legacy=off',
    options: { legacy: true },
    interrupts: 'msix',
  },
];

async function withFolder(use: (folder: string) => Promise<void>): Promise<void> {
  const folder = mkdtempSync(join(tmpdir(), 'e-'));
  try {
    await use(folder);
  } finally {
    rmSync(folder, { recursive: true });
  }
}

const setLink = (guest: Guest, name: string, up: boolean): Promise<unknown> =>
  guest.qmp.execute('set_link', { name: `card-${name}`, up });

const announce = (guest: Guest, name: string): Promise<unknown> =>
  guest.qmp.execute('announce-self', {
    ...{ initial: 50, max: 50, rounds: 1, step: 50 },
    interfaces: [`card-${name}`],
  });

async function assertLink(guest: Guest, { name }: Card, program: EventsProgram): Promise<void> {
  for (let flap = 1; flap <= FLAPS; flap++) {
    await setLink(guest, name, false);
    await program.until('event link down', flap);
    await setLink(guest, name, true);
    await program.until('event link up', 1 + flap);
  }
}

/** The second one is told of only when the first was acknowledged: until then the device shows that it waits. */
async function assertAnnouncements(guest: Guest, { name }: Card, program: EventsProgram): Promise<void> {
  for (let time = 1; time <= 2; time++) {
    await announce(guest, name);
    await program.until('event announce', time);
  }
  assert.is(await program.count('announce'), 2);
}

test('link, announcement, MTU 1400, sleep by MSI-X, INTx and legacy MSI-X, and a device unplugged in mid-traffic', () =>
  withFolder(async (folder) => {
    const peers = await Promise.all(CARDS.map(({ name }) => streamEcho(join(folder, name))));
    try {
      await using guest = await bootGuest({
        iommu: true,
        hostRoot: true,
        memoryMb: 768,
        modules: DRIVER_MODULES,
        arguments: [
          ...['-device', 'pcie-root-port,id=rp0,chassis=1,slot=1,addr=4'],
          ...CARDS.flatMap(({ name, properties }, index) => [
            ...peers[index]!.netdev(name),
            ...['-device', `virtio-net-pci,netdev=${name},id=card-${name},romfile=,${properties}`],
          ]),
        ],
      });
      await makeHugepages(guest, HUGEPAGES);
      const bound = await runCli(guest, 'devbind', '--bind', 'vfio-pci', ...CARDS.map(({ address }) => address));
      assert.is(bound.status, 0, bound.output);
      for (const card of [...CARDS].reverse()) {
        const program = await EventsProgram.start(guest, card.address, card.options);
        const port = await program.line('port');
        assert.is(port.interrupts, card.interrupts, card.name);
        assert.is(port.linkUp, true);
        assert.equal(await program.line('signals'), { rounds: 10 }, `${card.name}: interrupts that came`);
        assert.equal(await program.line('pings'), { rounds: 50 });
        await program.until('traffic');
        await assertLink(guest, card, program);
        await assertAnnouncements(guest, card, program);
        if (card.name === 'pluggable') {
          assert.is(port.maxFrameBytes, 1400 + 18);
          assert.equal(await program.line('long'), { sent: 0, tooLong: 1, shorter: 1 });
          await assertUnplugs(guest, card, program);
        } else {
          await program.stop();
          const end = await program.line('end');
          assert.is(end.state, 'started');
          assert.ok(end.closed && end.received > 0);
        }
      }
      assert.not.match(await guest.run('dmesg'), /DMAR:.*fault|BUG:|Call Trace/i);
    } finally {
      for (const peer of peers) await peer[Symbol.asyncDispose]();
    }
  }));

/** The guest's kernel waits until the driver has given the device back: then it is gone, for QEMU too. */
async function assertUnplugs(guest: Guest, { name, address }: Card, program: EventsProgram): Promise<void> {
  const deleted = guest.qmp.next('DEVICE_DELETED');
  await guest.qmp.execute('device_del', { id: `card-${name}` });
  await program.until('event fault PEER_GONE: the device at 0000:01:00.0 is being unplugged');
  const end = await program.line('end');
  assert.is(end.state, 'failed');
  assert.ok(end.closed && end.received > 0);
  await deleted;
  await guest.run(`[ ! -e /sys/bus/pci/devices/${address} ]`);
}

test.run();
