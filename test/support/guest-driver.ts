/** Our driver inside a guest: the host's Node and this project's build, over the guest's own devices. */

import { fileURLToPath } from 'node:url';
import * as assert from 'uvu/assert';

import type { Guest } from './guest-machine.js';

const CLI = fileURLToPath(new URL('../../driver/cli/main.js', import.meta.url));
/** Kernel modules of a guest that drives devices itself. */
export const DRIVER_MODULES = ['vfio_iommu_type1', 'vfio_pci'] as const;
/** Generous: a guest's clock runs fast on a busy machine, and it is the guest that keeps the time. */
const NODE_MS = 600_000;

/** What of `loopback --json` is looked at. */
export interface LoopbackReport {
  readonly ok: boolean;
  readonly sent: number;
  readonly received: number;
  readonly verified: number;
  readonly lost: number;
  readonly corrupt: number;
  readonly reordered: number;
  readonly drops: Readonly<Record<string, number>>;
  readonly memory: { readonly kind: string };
  readonly error: { readonly code: string; readonly message: string } | null;
}

/** Runs `virtio-pmd …` in a guest that has the host's files; resolves to its status, output and errors. */
export async function runCli(guest: Guest, ...words: readonly string[]) {
  const command = [`chroot /host ${process.execPath} ${CLI}`, ...words].join(' ');
  return await guest.tryRun(`${command} 2>/tmp/errors; status=$?; cat /tmp/errors; exit $status`, {
    timeoutMs: NODE_MS,
  });
}

/** Runs a compiled file in such a guest; resolves to what it printed. @throws Error with that when it fails */
export async function runProgram(guest: Guest, program: URL, ...words: readonly string[]): Promise<string> {
  const parts = [process.execPath, '--enable-source-maps', fileURLToPath(program), ...words.map((word) => `'${word}'`)];
  return await guest.run(`chroot /host ${parts.join(' ')}`, { timeoutMs: NODE_MS });
}

/** Makes 2 MiB hugepages. */
export const makeHugepages = async (guest: Guest, pages: number): Promise<void> =>
  void (await guest.run(`echo ${pages} > /proc/sys/vm/nr_hugepages; [ $(cat /proc/sys/vm/nr_hugepages) = ${pages} ]`));

async function runLoopback(guest: Guest, device: string, packets: number, more: readonly string[]) {
  const size = more.includes('--pcap-in') ? [] : ['--size', 'imix'];
  const words = ['loopback', '--json', ...size, '--device', device, '--packets', String(packets), ...more];
  const { status, output } = await runCli(guest, ...words);
  const json = output.split('\n').find((line) => line.startsWith('{'));
  const what = `${device} ${more.join(' ')}: ${output}\n${guest.console}`;
  return { status, what, report: JSON.parse(json ?? '{}') as LoopbackReport };
}

/** Sends packets through a device of the guest and back; fails unless every one came back as it was sent. */
export async function assertLoopback(
  guest: Guest,
  device: string,
  packets: number,
  ...more: readonly string[]
): Promise<LoopbackReport> {
  const { status, what, report } = await runLoopback(guest, device, packets, more);
  assert.is(status, 0, what);
  assert.ok(report.ok, what);
  assert.equal([report.sent, report.received, report.verified, report.lost], [packets, packets, packets, 0], what);
  return report;
}

/**
 * The same behind a driver that was killed: what the device had ready for that one, `mayFollow` packets at most, is for its
 * successor as on any network. Every packet of its own comes back as it was sent all the same.
 */
export async function assertSuccessor(guest: Guest, device: string, packets: number, mayFollow: number): Promise<void> {
  const { status, what, report } = await runLoopback(guest, device, packets, []);
  const followed = report.received - packets;
  assert.equal([report.sent, report.verified, report.lost], [packets, packets, 0], what);
  assert.ok(followed >= 0 && followed <= mayFollow, what);
  if (followed === 0) assert.equal([status, report.ok], [0, true], what);
}

/**
 * The same where the host's side may throw packets away, `mayLose` at most: so many more are sent, and none of those that
 * come back may be anything but what was sent, in order.
 */
export async function assertLossyLoopback(
  guest: Guest,
  device: string,
  packets: number,
  mayLose: number,
  ...more: readonly string[]
): Promise<LoopbackReport> {
  const { what, report } = await runLoopback(guest, device, packets + mayLose, more);
  assert.is(report.sent, packets + mayLose, what);
  assert.ok(report.verified >= packets, what);
  assert.equal([report.received, report.corrupt, report.reordered], [report.verified, 0, 0], what);
  return report;
}
