/**
 * A virtual machine whose own kernel drives many cards of our back-end, each with other features: what its tools show, ping,
 * TCP each way with its checksum, and the same counters at both ends. At full counts all combinations, with 100 MB each.
 */

import { setTimeout as delay } from 'node:timers/promises';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';

import type { NetDevice } from '../../driver/backend/net-device.js';
import { tapPort } from '../../driver/backend/ports/built-in.js';
import { receiveqIndex, transmitqIndex } from '../../driver/spec/net-config.js';
import { GuestBackend } from '../support/guest-backend.js';
import { assertPings, assertQuietKernel, assertTransfers, bringUp, transferData } from '../support/guest-checks.js';
import { HostEnd } from '../support/guest-host-end.js';
import {
  assertFeatures,
  assertTools,
  describeCard,
  type KernelCard,
  type KernelCounters,
  kernelCounters,
  mtuOf,
  PARAMETERS,
  pairsOf,
  propertiesOf,
} from '../support/guest-kernel-cards.js';
import { bootGuest, type Guest } from '../support/guest-machine.js';
import { allCombinationsOf, pairwiseSampleOf } from '../support/pairwise.js';
import { skipWithout, skipWithoutRoot } from '../support/skip.js';
import { uniqueName } from '../support/test-names.js';

export const timeBoundSeconds = 360;
export const fullTimeBoundSeconds = 10_800;

const full = process.env['VIRTIO_PMD_FULL'] === '1';
const MEGABYTES = full ? 100 : 1;
/** Cards of one machine. */
const CARDS = 12;
/** How long counters may take to be the same: those of a poll thread are seen some turns later. */
const COUNTED_MS = 10_000;

const test = skipWithoutRoot(
  skipWithout(suite('virtual machine, cards of every kind'), 'qemu', 'kernel', 'busybox', 'iproute2', 'ethtool'),
);
const CHOSEN: readonly KernelCard[] = full ? allCombinationsOf(PARAMETERS) : pairwiseSampleOf(PARAMETERS);

/** A network of its own for each card: the guest is 1 there, the host 254. */
const addressOf = (index: number, host: number): string => `10.77.${index}.${host}`;

/** What the device has counted, as the kernel shows it. */
function deviceCounters(device: NetDevice, card: KernelCard): KernelCounters {
  const of = (ring: (pair: number) => number, counter: 'packets' | 'bytes'): number[] =>
    Array.from({ length: pairsOf(card) }, (_, pair) => device.statistics(ring(pair))[counter]);
  return {
    received: of(receiveqIndex, 'packets'),
    receivedBytes: of(receiveqIndex, 'bytes'),
    sent: of(transmitqIndex, 'packets'),
    sentBytes: of(transmitqIndex, 'bytes'),
  };
}

/** Waits until both ends have counted the same packets and bytes on each queue. */
async function assertSameCounters(guest: Guest, device: NetDevice, card: KernelCard, name: string): Promise<void> {
  const deadline = performance.now() + COUNTED_MS;
  for (;;) {
    const [ours, kernels] = [deviceCounters(device, card), await kernelCounters(guest, card, name)];
    if (JSON.stringify(ours) === JSON.stringify(kernels)) return;
    if (performance.now() > deadline) assert.equal(kernels, ours, describeCard(card));
    await delay(100);
  }
}

async function assertCard(
  guest: Guest,
  device: NetDevice,
  tap: string,
  card: KernelCard,
  index: number,
): Promise<void> {
  const name = `eth${index}`;
  await using host = await HostEnd.create(tap, addressOf(index, 254));
  await host.run(`ip link set ${tap} mtu ${mtuOf(card)}`);
  await bringUp(guest, addressOf(index, 1), name);
  await assertTools(guest, card, name);
  for (const bytes of [0, mtuOf(card) - 28, 4000]) await assertPings(guest, host.address, { bytes, count: 3 });
  if (card.mq) await assertFewerPairs(guest, name, host.address);
  // Each processor sends on a queue of its own.
  for (const cpu of [0, 1]) await guest.run(`taskset ${1 << cpu} ping -c 5 -i 0.1 -W 3 ${host.address}`);
  for (let pair = 0; pair < pairsOf(card); pair++) {
    assert.ok(device.statistics(transmitqIndex(pair)).packets >= 5, `${describeCard(card)}: pair ${pair} sends`);
  }
  await assertTransfers(guest, host, host.address, MEGABYTES);
  await assertTransfers(host, guest, addressOf(index, 1), MEGABYTES);
  await assertSameCounters(guest, device, card, name);
  await guest.run(`ip link set ${name} down`);
}

/** With one pair, and with both again. */
async function assertFewerPairs(guest: Guest, name: string, address: string): Promise<void> {
  for (const pairs of [1, 2]) {
    await guest.run(`ethtool -L ${name} combined ${pairs}`);
    assert.match(await guest.run(`ethtool -l ${name}`), new RegExp(`Combined:\\s+${pairs}\\s*$`));
    await assertPings(guest, address, { count: 3 });
  }
}

for (let first = 0; first < CHOSEN.length; first += CARDS) {
  const cards = CHOSEN.slice(first, first + CARDS);
  test(`cards ${first + 1} to ${first + cards.length} of ${CHOSEN.length}: tools, ping, TCP each way, counters`, async () => {
    const taps = cards.map(() => uniqueName('gk'));
    let connections = 0;
    await using backend = await GuestBackend.start({
      port: () => tapPort({ name: taps[connections++]! }),
      queuePairs: 2,
    });
    await using guest = await bootGuest({
      cards: cards.map((card) => ({ path: backend.path, queues: pairsOf(card), properties: propertiesOf(card) })),
      smp: 2,
      files: { data: transferData() },
      programs: ['/usr/sbin/ethtool'],
    });
    for (const [index, card] of cards.entries()) {
      await assertCard(guest, backend.devices[index]!, taps[index]!, card, index);
    }
    assertNegotiated(backend, cards);
    await assertQuietKernel(guest);
    assert.equal(backend.errors, []);
  });
}

/** What came over the sockets is what the guest's kernel shows. */
function assertNegotiated(backend: GuestBackend, cards: readonly KernelCard[]): void {
  for (const [index, card] of cards.entries()) {
    const event = backend.events.findLast((each) => each.type === 'features' && each.connection === index + 1);
    assert.ok(event?.type === 'features');
    assertFeatures(card, (feature) => event.features.has(feature));
  }
}

test.run();
