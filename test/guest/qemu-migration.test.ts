/**
 * Live migration of a running guest under traffic, from one QEMU with a back-end process of its own to another with
 * another. A bridge joins the two back-ends' taps, as a network would: what the guest announces moves its traffic.
 */

import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';

import { CliDaemon } from '../support/cli-daemon.js';
import { GuestBridge } from '../support/guest-bridge.js';
import { assertPings, assertQuietKernel, bringUp, NETWORK, transferData } from '../support/guest-checks.js';
import { HostEnd } from '../support/guest-host-end.js';
import { bootGuest, type GuestOptions } from '../support/guest-machine.js';
import { compareMemory, migrate, usedRings } from '../support/guest-migration.js';
import { timeOf } from '../support/guest-qmp.js';
import { GuestTraffic, PING_MS, type TrafficOptions } from '../support/guest-traffic.js';
import { skipWithout, skipWithoutRoot } from '../support/skip.js';
import { uniqueName } from '../support/test-names.js';

export const timeBoundSeconds = 400;
export const fullTimeBoundSeconds = 1200;

const isFull = process.env['VIRTIO_PMD_FULL'] === '1';
const GUEST = `${NETWORK}1`;
const HOST = `${NETWORK}254`;
const MAC = '02:00:00:00:05:01';
/** Property of a card whose guest says nothing when it has been moved: the back-end does. */
const NO_ANNOUNCEMENT = 'guest_announce=off';
/** Beside those that are sent while the guest stands still: five seconds, in which its emulated processor gets going. */
const MOST_LOST_PINGS = 50;
/** Of packets, in the guest's memory: what the host sends lies in free pages for a while. */
const FEW_PIECES = 20;
const DAEMON_MS = 380_000;
/** What is shown of what a back-end said, where a test fails. */
const KEPT_CHARACTERS = 4000;

const test = skipWithoutRoot(
  skipWithout(suite('live migration of a virtual machine'), 'qemu', 'kernel', 'busybox', 'iproute2', 'python3'),
);

/** A back-end of its own process, with a tap; the machine that is at it is started with `card`. */
interface Site {
  readonly daemon: CliDaemon;
  readonly tap: string;
  readonly path: string;
}

async function openSite(folder: string, name: string, options: readonly string[]): Promise<Site> {
  const [path, tap] = [join(folder, name), uniqueName('gm')];
  const args = [`--socket-path=${path}`, '--mode', 'switch', '--tap', tap, ...options];
  return { daemon: await CliDaemon.start(args, { timeoutMs: DAEMON_MS }), tap, path };
}

interface Variant {
  /** Of a machine with an IOMMU: what its kernel does with it. */
  readonly kernelWords?: readonly string[];
  /** Properties of the card beside its address. */
  readonly properties: readonly string[];
  readonly daemon: readonly string[];
  readonly traffic: TrafficOptions;
}

async function assertMoves(variant: Variant, folder: string, sites: readonly [Site, Site]): Promise<void> {
  const [here, there] = sites;
  const bridge = await GuestBridge.create([here.tap, there.tap], HOST);
  await using host = HostEnd.in(bridge);
  const options = ({ path }: Site): GuestOptions => ({
    cards: [{ path, macAddress: MAC, properties: variant.properties }],
    iommu: variant.kernelWords !== undefined,
    kernelWords: variant.kernelWords,
    files: { data: transferData() },
  });
  await using source = await bootGuest(options(here));
  await bringUp(source, GUEST);
  await assertPings(source, HOST);
  const uri = `unix:${join(folder, 'migration')}`;
  await using destination = await bootGuest({ ...options(there), incoming: uri });

  const traffic = await GuestTraffic.start(host, source, GUEST, folder, variant.traffic);
  assert.is(await bridge.portOf(MAC), here.tap, 'the guest is here');
  const lostBefore = traffic.lostPings;
  const { stoppedAt, downtimeMs, syncs, transferred } = await migrate(source, destination, uri);
  const rings = variant.kernelWords?.includes('iommu.strict=1') ? [] : await usedRings(source);
  const { marked, stale, repaired } = compareMemory(source, destination, rings);
  const rarp = await bridge.listenForRarp();
  const resumed = destination.qmp.next('RESUME');
  await destination.qmp.execute('cont');
  const stoodStillMs = timeOf(await resumed) - stoppedAt;
  await source.close('SIGKILL');
  console.log(`${syncs} rounds, ${transferred >> 20} MB; ${marked} pieces of packets; ${repaired} pages lost by QEMU`);
  assert.equal(stale, [], 'what the back-end wrote and did not arrive');
  assert.ok(marked > FEW_PIECES, `${marked} pieces of packets`);

  await traffic.morePings();
  const lost = traffic.lostPings - lostBefore;
  const times = `stood still for ${stoodStillMs.toFixed(0)} ms (${downtimeMs} ms of QEMU's)`;
  console.log(`${times}; ${lost} pings of ${PING_MS} ms lost`);
  assert.is(await bridge.portOf(MAC), there.tap, 'the guest is there');
  await rarp.stop();
  assert.is(
    rarp.output().includes(MAC),
    variant.properties.includes(NO_ANNOUNCEMENT),
    'a RARP where the guest is silent',
  );
  assert.ok(lost <= Math.ceil(stoodStillMs / PING_MS) + MOST_LOST_PINGS, `${lost} pings lost; ${times}`);
  await traffic.finish(destination);
  await assertPings(destination, HOST);
  await assertQuietKernel(destination);
  // A request that QEMU refuses while it stops the guest is put right by itself.
  const errors = sites.flatMap(({ daemon }) => daemon.all('error').filter(({ outcome }) => outcome !== 'OK'));
  assert.equal(errors, []);
}

async function moves(variant: Variant): Promise<void> {
  const folder = mkdtempSync(join(tmpdir(), 'm-'));
  const sites: Site[] = [];
  try {
    for (const name of ['here', 'there']) sites.push(await openSite(folder, name, variant.daemon));
    await assertMoves(variant, folder, sites as [Site, Site]).catch((error: Error) => {
      const said = sites.map(({ path, daemon }) => `${path}: ${daemon.cli.stdout().slice(-KEPT_CHARACTERS)}`);
      error.message += `\n${said.join('\n')}`;
      throw error;
    });
    for (const { daemon } of sites) await daemon.stop();
  } finally {
    for (const { daemon } of sites) daemon.cli.kill('SIGKILL');
    rmSync(folder, { recursive: true, force: true });
  }
}

test('under TCP and UDP, what the back-end wrote arrives, and the announcement of the guest moves its traffic', () =>
  moves({ properties: [], daemon: [], traffic: { packetsPerSecond: 100, hasTransfer: true } }));

/** What the card needs to be behind the IOMMU. */
const BEHIND_IOMMU = ['disable-legacy=on', 'iommu_platform=on', 'ats=on'];

// QEMU marks used rings as written by itself, but for those behind an IOMMU. The last entries of this one share no page
// with what a processor writes.
test('with an IOMMU, what the back-end wrote arrives, used ring and all, and a RARP of the back-end moves the traffic', () =>
  moves({
    kernelWords: ['iommu=pt'],
    properties: [...BEHIND_IOMMU, NO_ANNOUNCEMENT, 'rx_queue_size=1024'],
    daemon: ['--iommu'],
    traffic: { packetsPerSecond: 100, hasTransfer: true },
  }));

if (isFull) {
  test('the same where every buffer has a translation of its own', () =>
    moves({
      // QEMU 7.2 does not tell of all translations that a kernel takes away late: pages are written that are others'.
      kernelWords: ['iommu.strict=1'],
      properties: [...BEHIND_IOMMU, NO_ANNOUNCEMENT],
      daemon: ['--iommu'],
      // Each packet waits for a translation.
      traffic: { packetsPerSecond: 20, hasTransfer: false },
    }));
}

test.run();
