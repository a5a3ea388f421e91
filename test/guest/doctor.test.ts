/**
 * `virtio-pmd doctor` in a guest: what it says is wrong is wrong, and its own commands put it right, until the driver runs.
 *
 * One machine has an IOMMU, and a bus that goes around it.
 */

import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';

import { CLI } from '../support/cli.js';
import { DRIVER_MODULES, runCli } from '../support/guest-driver.js';
import { bootGuest, type Guest } from '../support/guest-machine.js';
import { skipWithout } from '../support/skip.js';
import { type StreamPeer, streamEcho } from '../support/stream-peer.js';

const test = skipWithout(suite('virtio-pmd doctor in a guest'), 'qemu', 'kernel', 'busybox');
export const timeBoundSeconds = 600;

const PROGRAM = fileURLToPath(new URL('../support/doctor-guest-program.js', import.meta.url));
const FULL = process.env['VIRTIO_PMD_FULL'] ?? '';
/**
 * The guest counts these, and its clock runs fast where a busy host disturbed it while the kernel measured its speed: they
 * are bounds for what hangs, and the file's own bound comes first.
 */
const STEPS_MS = 1_800_000;
const NODE_MS = 900_000;
const BOOT_MS = 240_000;
const DEVICE = '0000:00:09.0';
const NOBODY = 65_534;
const MEMLOCK_LOW = 65_536;

/**
 * Runs the command line as a root without any capability, who may lock so much memory: a user who can still read the
 * checkout, wherever that is.
 */
const runPowerless = (guest: Guest, memlock: number, ...words: readonly string[]) =>
  guest.tryRun(
    [
      ...['chroot /host prlimit', `--memlock=${memlock}`, 'setpriv --bounding-set=-all --inh-caps=-all'],
      ...[process.execPath, CLI, ...words, '2>&1'],
    ].join(' '),
    { timeoutMs: NODE_MS },
  );

/** Not root, and not enough memory to lock: what the doctor says, what the driver says, and that the doctor's cure is one. */
async function checkPowerless(guest: Guest): Promise<void> {
  await guest.run(`chown ${NOBODY} /dev/vfio/$(basename $(readlink /sys/bus/pci/devices/${DEVICE}/iommu_group))`);
  const doctor = await runPowerless(guest, MEMLOCK_LOW, 'doctor', DEVICE);
  assert.is(doctor.status, 1, doctor.output);
  const [, needed] = /TROUBLE {2}memlock: 0\.1 MiB; needed: .*LimitMEMLOCK=(\d+)/.exec(doctor.output) ?? [];
  const [, chown] = /TROUBLE {2}access: .*; do: (chown 0 \/dev\/vfio\/\d+)/.exec(doctor.output) ?? [];
  assert.ok(needed !== undefined && chown !== undefined, doctor.output);
  const loopback = ['loopback', '--device', DEVICE, '--packets', '200', '--memory', '4K'];
  const refused = await runPowerless(guest, MEMLOCK_LOW, ...loopback);
  assert.is(refused.status, 1);
  assert.match(
    refused.output,
    /^virtio-pmd: PERMISSION_DENIED: \/dev\/vfio\/\d+ may not be opened.*\(run as root, or chown/m,
  );
  await guest.run(chown);
  const low = await runPowerless(guest, MEMLOCK_LOW, ...loopback);
  assert.is(low.status, 1, low.output);
  assert.match(
    low.output,
    /^virtio-pmd: NO_RESOURCES: .*the memlock limit is 65536 bytes \(raise it to at least \d+ bytes/m,
  );
  const enough = await runPowerless(guest, Number(needed), ...loopback);
  assert.is(enough.status, 0, `with what the doctor said: ${enough.output}`);
}

test('behind an IOMMU and around it: each trouble, its cure, and the driver running after it', async () => {
  const folder = mkdtempSync(join(tmpdir(), 'd-'));
  const peers: StreamPeer[] = [];
  try {
    const card = async (name: string, place: string, properties: string): Promise<string[]> => {
      const peer = await streamEcho(join(folder, name));
      peers.push(peer);
      return [...peer.netdev(name), '-device', `virtio-net-pci,netdev=${name},${place},romfile=,${properties}`];
    };
    const translated = 'disable-legacy=on,iommu_platform=on,ats=on';
    await using guest = await bootGuest({
      iommu: true,
      hostRoot: true,
      memoryMb: 768,
      bootTimeoutMs: BOOT_MS,
      modules: DRIVER_MODULES,
      arguments: [
        ...(await card('alone', 'addr=0x9', translated)),
        ...(await card('shared', 'addr=0xa,multifunction=on', translated)),
        ...(await card('sibling', 'addr=0xa.1', translated)),
        ...['-device', 'pxb-pcie,id=pxb,bus=pcie.0,bus_nr=32,bypass_iommu=on,addr=0xd'],
        ...['-device', 'pcie-root-port,id=rootport,bus=pxb,chassis=1,slot=1'],
        ...(await card('around', 'bus=rootport', 'disable-legacy=on')),
      ],
    });
    // Nobody drives anything yet: nothing is missing.
    const idle = await runCli(guest, 'doctor');
    assert.is(idle.status, 0, idle.output);
    assert.match(idle.output, /^This machine: .*, kernel \d\S+, .*a virtual machine/m);
    assert.match(idle.output, /^ {2}0000:00:09\.0 {2}1af4:1041, virtio-pci, IOMMU group \d+$/m);
    assert.match(idle.output, /The kernel has them all/);
    const program = `VIRTIO_PMD_FULL=${FULL} chroot /host ${process.execPath} --enable-source-maps ${PROGRAM}`;
    const { status, output } = await guest.tryRun(`${program} 2>&1`, { timeoutMs: STEPS_MS });
    assert.is(status, 0, `${output}\n${guest.console}`);
    const frames = peers.map((peer) => peer.frames);
    assert.ok(Math.min(...frames) >= 300, `frames: ${frames}`);
    await checkPowerless(guest);
  } finally {
    for (const peer of peers) await peer[Symbol.asyncDispose]();
    rmSync(folder, { recursive: true });
  }
});

test.run();
