/** The driver in a guest, over that guest's own kernel: /dev/vhost-net with a tap, the exceptional path. */

import { fileURLToPath } from 'node:url';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';

import { assertQuietKernel } from '../support/guest-checks.js';
import { busyboxImage } from '../support/guest-kernel.js';
import { bootGuest, type Guest } from '../support/guest-machine.js';
import { skipWithout } from '../support/skip.js';

export const timeBoundSeconds = 400;
export const fullTimeBoundSeconds = 1200;

const test = skipWithout(suite('the driver over the kernel’s vhost-net, in a guest'), 'qemu', 'kernel', 'busybox');
const PACKETS = process.env['VIRTIO_PMD_FULL'] === '1' ? 10_000 : 500;
const SCENARIOS = fileURLToPath(new URL('../support/vhost-kernel-guest.js', import.meta.url));
/** By the guest's clock, which may be several times too fast on a machine with much else to do; this file's bound is the real one. */
const SCENARIOS_MS = 1_200_000;

interface Outcome {
  readonly name: string;
  readonly ms: number;
  readonly note?: string;
  readonly error?: string;
}

async function runScenarios(guest: Guest, ...names: readonly string[]): Promise<Outcome[]> {
  const words = [process.execPath, '--enable-source-maps', SCENARIOS, PACKETS, busyboxImage(), ...names];
  const { output } = await guest.tryRun(`exec chroot /host ${words.join(' ')}`, { timeoutMs: SCENARIOS_MS });
  const lines = output.split('\n').filter((line) => line.startsWith('{'));
  const outcomes = lines.map((line) => JSON.parse(line) as Outcome);
  // One that is not there says why in what else there is.
  for (const name of names.slice(outcomes.length)) outcomes.push({ name, ms: 0, error: `${output}\n${guest.console}` });
  return outcomes;
}

/** One guest and one program in it for them all: that is most of the time. */
const NAMES = ['traffic', 'events', 'queues', 'interrupts', 'restarts', 'closing', 'deleted', 'refusals'] as const;
const outcomes = new Map<string, Outcome>();
test.before(async () => {
  await using guest = await bootGuest({
    hostRoot: true,
    memoryMb: 512,
    moreModules: ['vhost_net'],
  });
  const missing = await runScenarios(guest, 'missing');
  await guest.run('load vhost_net');
  for (const outcome of [...missing, ...(await runScenarios(guest, ...NAMES))]) outcomes.set(outcome.name, outcome);
  await assertQuietKernel(guest);
});

function assertWent(name: 'missing' | (typeof NAMES)[number]): void {
  const { error, ms, note } = outcomes.get(name) ?? { error: 'it did not run', ms: 0 };
  assert.is(error, undefined, error);
  console.log(`${name}: ${ms} ms ${note ?? ''}`);
}

test('without the module: the error names it', () => assertWent('missing'));
test('ping from the kernel, and datagrams each way with every byte looked at', () => assertWent('traffic'));
test('event indices, packets of several buffers, small rings', () => assertWent('events'));
test('two queue pairs: both carry packets', () => assertWent('queues'));
test('an interrupt for a packet that comes while nobody looks', () => assertWent('interrupts'));
test('twenty restarts under traffic', () => assertWent('restarts'));
test('closed under traffic: no descriptor, thread or interface is left; a lasting tap stays', () =>
  assertWent('closing'));
test('the interface deleted in mid-traffic: a fault that says so, once', () => assertWent('deleted'));
test('bad use gets an error that names the cause', () => assertWent('refusals'));

test.run();
