/** testpmd's virtio ports with DPDK's testpmd at the other end, and with our own: either side, either role, split and packed. */

import { execFileSync } from 'node:child_process';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as pause } from 'node:timers/promises';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { Program } from '../support/golden-run.js';
import { Testpmd } from '../support/testpmd.js';
import { PATIENCE_MS } from '../support/until.js';

const test = suite("testpmd's virtio ports");
type End = 'ours' | 'dpdk';
const programs = { ours: Program.ours, dpdk: ['dpdk-testpmd'] } as const;

const hasDpdk = ((): boolean => {
  try {
    execFileSync('which', ['dpdk-testpmd'], { stdio: 'ignore' });
    return true;
  } catch {
    return false;
  }
})();

async function inFolder(body: (path: string) => Promise<void>): Promise<void> {
  const folder = await mkdtemp(join(tmpdir(), 'testpmd-ports-'));
  try {
    await body(join(folder, 'vhost.sock'));
  } finally {
    await rm(folder, { recursive: true });
  }
}

/** The numbers of a port's statistics. */
interface Numbers {
  readonly rx: number;
  readonly tx: number;
}

async function numbers(testpmd: Testpmd): Promise<Numbers> {
  const from = testpmd.output.length;
  await testpmd.command('show port xstats 0', /tx_q0_size_1519_max_packets: \d+/);
  const value = (name: string): number =>
    Number(new RegExp(`^${name}: (\\d+)`, 'm').exec(testpmd.output.slice(from))?.[1] ?? Number.NaN);
  return { rx: value('rx_good_packets'), tx: value('tx_good_packets') };
}

const stop = (testpmd: Testpmd): Promise<void> => testpmd.command('stop', /Done\.\s+testpmd> $/);
const start = (testpmd: Testpmd, how = 'start'): Promise<void> => testpmd.command(how, /TX offloads=[\s\S]*testpmd> $/);

/** Waits until a port has received so many in all. */
async function hasReceived(testpmd: Testpmd, packets: number): Promise<void> {
  const end = performance.now() + PATIENCE_MS;
  while ((await numbers(testpmd)).rx < packets) {
    assert.ok(performance.now() < end, `fewer than ${packets} packets:\n${testpmd.output.slice(-2000)}`);
    await pause(50);
  }
}

/** Waits until a port has received so many more. */
const receives = async (testpmd: Testpmd, packets: number): Promise<void> =>
  hasReceived(testpmd, (await numbers(testpmd)).rx + packets);

/** Packets go round between the two until both are stopped, the guest first: then the host has had all that it sent. */
async function exchange(guest: Testpmd, host: Testpmd): Promise<void> {
  const [guestBefore, hostBefore] = [await numbers(guest), await numbers(host)];
  await start(host);
  await start(guest, 'start tx_first');
  await receives(guest, 200);
  await stop(guest);
  await hasReceived(host, hostBefore.rx + (await numbers(guest)).tx - guestBefore.tx);
  await stop(host);
  const [guestAfter, hostAfter] = [await numbers(guest), await numbers(host)];
  assert.is(hostAfter.rx - hostBefore.rx, guestAfter.tx - guestBefore.tx, 'all that the guest sent came');
  assert.is(hostAfter.tx - hostBefore.tx, hostAfter.rx - hostBefore.rx, 'and went back');
}

const startHost = (end: End, path: string, more = '', options: readonly string[] = []): Promise<Testpmd> =>
  Testpmd.start({ options, program: programs[end], vdevs: [`net_vhost0,iface=${path}${more}`] });
const startGuest = (end: End, path: string, more = '', options: readonly string[] = []): Promise<Testpmd> =>
  Testpmd.start({ options, program: programs[end], vdevs: [`net_virtio_user0,path=${path}${more}`] });

const TWO = ['--rxq=2', '--txq=2'];
const shapes = [
  { name: 'split rings', guest: '', host: '', options: [] },
  { name: 'two pairs of packed rings', guest: ',queues=2,packed_vq=1', host: ',queues=2', options: TWO },
  { name: 'buffers that are not merged', guest: ',mrg_rxbuf=0,in_order=0', host: '', options: [] },
] as const;
const pairings = [
  { host: 'ours', guest: 'dpdk' },
  { host: 'dpdk', guest: 'ours' },
  { host: 'ours', guest: 'ours' },
] as const;

for (const { host: hostEnd, guest: guestEnd } of hasDpdk ? pairings : pairings.slice(2)) {
  for (const shape of shapes) {
    test(`net_vhost of ${hostEnd}, net_virtio_user of ${guestEnd}: ${shape.name}; ports stop and start`, () =>
      inFolder(async (path) => {
        const host = await startHost(hostEnd, path, shape.host, shape.options);
        try {
          const guest = await startGuest(guestEnd, path, shape.guest, shape.options);
          try {
            await host.waitFor(/Port 0: link state change event/);
            await exchange(guest, host);
            await guest.command('port stop 0', /Done\s+testpmd> $/);
            await guest.command('port start 0', /Done\s+testpmd> $/);
            await exchange(guest, host);
          } finally {
            await guest.quit();
          }
        } finally {
          await host.quit();
        }
      }));
  }

  test(`net_vhost of ${hostEnd} connects to net_virtio_user of ${guestEnd}, which listens`, () =>
    inFolder(async (path) => {
      // It waits for somebody to connect before it has a prompt.
      const starting = startGuest(guestEnd, path, ',server=1');
      starting.catch(() => undefined);
      const host = await startHost(hostEnd, path, ',client=1');
      try {
        const guest = await starting;
        try {
          await host.waitFor(/Port 0: link state change event/);
          await exchange(guest, host);
        } finally {
          await guest.quit();
        }
      } finally {
        await starting.then(
          (guest) => guest.quit(),
          () => undefined,
        );
        await host.quit();
      }
    }));
}

if (hasDpdk) {
  test('a guest that is killed while packets go round, and another one after it', () =>
    inFolder(async (path) => {
      const host = await startHost('ours', path);
      try {
        await start(host);
        for (let round = 0; round < 2; round++) {
          const from = host.output.length;
          const guest = await startGuest('dpdk', path);
          await host.waitFor(/Port 0: link state change event/, PATIENCE_MS, from);
          await start(guest, 'start tx_first');
          await receives(guest, 200);
          const before = host.output.length;
          await guest.kill();
          await host.waitFor(/Port 0: link state change event/, PATIENCE_MS, before);
        }
      } finally {
        await host.quit();
      }
    }));

  // DPDK's virtio driver puts tags in where packets are prepared, which its testpmd does in mode csum alone.
  for (const [sender, receiver, guestEnd] of [
    ['guest', 'host', 'ours'],
    ['host', 'guest', 'dpdk'],
  ] as const) {
    test(`VLAN tags that the ${sender}'s port puts in and the ${receiver}'s takes out: net_vhost of ours, net_virtio_user of ${guestEnd}`, () =>
      inFolder(async (path) => {
        const host = await startHost('ours', path);
        try {
          const guest = await startGuest(guestEnd, path);
          try {
            const ends = { guest, host };
            await ends[receiver].command('port stop 0', /Done\s+testpmd> $/);
            await ends[receiver].command('port config 0 rx_offload vlan_strip on', /testpmd> $/);
            await ends[receiver].command('port start 0', /Done\s+testpmd> $/);
            await ends[receiver].command('set fwd rxonly', /Set rxonly/);
            await ends[receiver].command('set verbose 1', /verbose level from/);
            await ends[sender].command('port stop 0', /Done\s+testpmd> $/);
            await ends[sender].command('tx_vlan set 0 5', /testpmd> $/);
            await ends[sender].command('port start 0', /Done\s+testpmd> $/);
            await ends[sender].command('set fwd txonly', /Set txonly/);
            await start(ends[receiver]);
            await ends[sender].command('start', /TX offloads=/);
            await ends[receiver].waitFor(/VLAN tci=0x5/);
            await ends[sender].command('stop', /Done\./);
            await ends[receiver].command('stop', /Done\./);
          } finally {
            await guest.quit();
          }
        } finally {
          await host.quit();
        }
      }));
  }

  test('a host that is killed while packets go round: the port is down, stops, and is detached', () =>
    inFolder(async (path) => {
      const host = await startHost('dpdk', path);
      let guest: Testpmd | undefined;
      try {
        guest = await startGuest('ours', path);
        await start(host);
        await start(guest, 'start tx_first');
        await receives(guest, 200);
        await host.kill();
        await guest.waitFor(/Port 0: link state change event/);
        await guest.command('show port summary 0', /net_virtio_user +down +None/);
        await stop(guest);
        await guest.command('port stop 0', /Done\s+testpmd> $/);
        await guest.command('port start 0', /Fail to start port 0/);
        await guest.command('port close 0', /Done\s+testpmd> $/);
        await guest.command('show port summary all', /Number of available ports: 0/);
      } finally {
        await guest?.quit();
        await host.kill();
      }
    }));

  for (const devargs of [
    'net_virtio_user0',
    'net_virtio_user0,foo=1',
    'net_virtio_user0,path=/tmp/none,queues=2,cq=0',
    'net_virtio_user0,path=/tmp/none,queues=300',
    'net_virtio_user0,path=/tmp/none,iface=tap0',
  ]) {
    test(`arguments that are refused as DPDK does: ${devargs}`, async () => {
      const said: Record<string, string[]> = {};
      for (const end of ['ours', 'dpdk'] as const) {
        const testpmd = await Testpmd.start({ program: programs[end], vdevs: ['net_null0'] });
        try {
          await testpmd.command(`port attach ${devargs}`, /Failed to attach port/);
          said[end] = testpmd.output.match(/virtio_user_pmd_probe\(\): .*/g) ?? [];
        } finally {
          await testpmd.quit();
        }
      }
      assert.equal(said['ours'], said['dpdk']);
      assert.is(said['ours']?.length, 1);
    });
  }
}

test('both ends in one process, on one pool: queues change lcores between two forwardings', () =>
  inFolder(async (path) => {
    const testpmd = await Testpmd.start({
      lcores: ['--lcores', '0,1@0,2@1'],
      program: programs.ours,
      vdevs: [`net_vhost0,iface=${path}`],
      options: ['--nb-cores=2'],
    });
    try {
      await testpmd.command(`port attach net_virtio_user0,path=${path}`, /Port 1 is attached[\s\S]*Done/);
      await testpmd.command('port start 1', /Done\s+testpmd> $/);
      for (const lcores of [2, 1, 2, 1]) {
        await testpmd.command(`set nbcore ${lcores}`, /Number of forwarding cores set/);
        const from = testpmd.output.length;
        await start(testpmd, 'start tx_first');
        assert.match(testpmd.output.slice(from), `cores=${lcores}`);
        await receives(testpmd, 1000);
        await stop(testpmd);
        assert.match(testpmd.output.slice(from), /TX-dropped: 0 /);
      }
    } finally {
      await testpmd.quit();
    }
    assert.match(testpmd.output, 'Bye...');
  }));

test.run();
