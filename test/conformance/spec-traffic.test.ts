/**
 * Random traffic between the driver and the device, with recorders of both in the middle: whatever is negotiated, neither
 * breaks a rule of its side, and every packet arrives.
 */

import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { offeredFeatures } from '../../driver/backend/net-device-offer.js';
import type { PortOptions } from '../../driver/net/port-options.js';
import { Feature } from '../../driver/spec/features.js';
import { assertPackets, pattern } from '../support/hand-guest.js';
import { randomNumbers } from '../support/memory-threads.js';
import { type CombinationOf, pairwiseSampleOf } from '../support/pairwise.js';
import { RecordedPort } from '../support/spec/recorded-port.js';

const test = suite('random traffic under the rules of the specification');
export const timeBoundSeconds = 300;
const isFull = process.env['VIRTIO_PMD_FULL'] !== undefined;
const SEEDS = isFull ? 300 : 30;
const STEPS = 120;
const SEGMENT_BYTES = 1800;

const parameters = {
  via: ['modern', 'legacy', 'vhost-user'],
  ring: ['split', 'packed'],
  mergeable: [true, false],
  indirect: [true, false],
  eventIndex: [true, false],
  notificationData: [true, false],
  interrupts: ['none', 'receive'],
  queues: [1, 2],
  ringSize: [4, 64],
  mtu: [0, 1500],
  inOrder: [true, false],
} as const;
type Combination = CombinationOf<typeof parameters>;

/** Combinations that there can be: a legacy device has no packed rings, and knows no notification data. */
const combinations = pairwiseSampleOf(parameters).map(
  (each): Combination =>
    each.via === 'legacy' ? { ...each, ring: 'split', notificationData: false, mergeable: true } : each,
);

function portOptions({ ring, mergeable, indirect, eventIndex, notificationData, ...rest }: Combination): PortOptions {
  const { interrupts, queues, ringSize, inOrder } = rest;
  // A port that does not know `inOrder` takes no notice.
  const options = { ring, mergeable, indirect, eventIndex, notificationData, interrupts, queues, ringSize, inOrder };
  return options;
}

/** A packet in one to four segments. */
function cut(packet: Uint8Array, random: (below: number) => number, most: number): Uint8Array[] {
  const pieces: Uint8Array[] = [];
  for (let at = 0; at < packet.length; ) {
    const rest = packet.length - at;
    // Those that follow take what is left, and none is longer than a buffer.
    const least = Math.max(14, rest - (most - pieces.length - 1) * SEGMENT_BYTES);
    const length = Math.min(rest, SEGMENT_BYTES, least + random(rest));
    pieces.push(packet.subarray(at, at + length));
    at += length;
  }
  return pieces;
}

async function exchange(combination: Combination, seed: number): Promise<void> {
  const { via, queues, mergeable, mtu, eventIndex, ring, indirect, ringSize } = combination;
  const offered = offeredFeatures({ queuePairs: 2, ...(mtu > 0 && { mtu }) }).with(
    ...(combination.notificationData ? [Feature.NOTIFICATION_DATA, Feature.NOTIF_CONFIG_DATA] : []),
  );
  const device = { offered, queuePairs: 2, maxRingSize: ringSize, ...(mtu > 0 && { mtu }) };
  await using both = await RecordedPort.open(via, device, portOptions(combination));
  const random = randomNumbers(seed);
  await both.start();
  const { port } = both;
  if (via !== 'legacy') {
    assert.is(port.features?.has(Feature.RING_PACKED), ring === 'packed');
    assert.is(port.features?.has(Feature.INDIRECT_DESC), indirect);
  }
  assert.is(port.features?.has(Feature.EVENT_IDX), eventIndex);
  const longest = mergeable && mtu === 0 ? 6000 : 1500;
  const pieces = Math.min(4, ringSize);
  const sent: Uint8Array[][] = Array.from({ length: queues }, () => []);
  const came: Uint8Array[][] = Array.from({ length: queues }, () => []);
  let number = 0;
  for (let step = 0; step < STEPS; step++) {
    const pair = random(queues);
    for (let count = random(6); count > 0; count--) {
      const packet = pattern(number++, 14 + random(random(4) === 0 ? longest - 14 : 200));
      if (both.send(pair, cut(packet, random, pieces))) sent[pair]!.push(packet);
    }
    if (random(8) === 0) both.device.wantKicks(random(2) === 0);
    const rx = port.rxQueue(pair);
    if (random(6) === 0 && combination.interrupts === 'receive') rx.armInterrupt();
    else if (random(6) === 0) rx.disarmInterrupt();
    both.device.poll(random(3));
    if (random(3) > 0) came[pair]!.push(...both.receive(pair));
  }
  for (let turn = 0; turn < 400; turn++) {
    both.device.poll();
    for (let pair = 0; pair < queues; pair++) came[pair]!.push(...both.receive(pair));
    if (came.every((packets, pair) => packets.length >= sent[pair]!.length)) break;
  }
  both.check();
  for (let pair = 0; pair < queues; pair++) assertPackets(came[pair]!, sent[pair]!, `pair ${pair}`);
  assert.ok(number > STEPS && sent.flat().length > STEPS / 2, `${sent.flat().length} packets went`);
  assert.ok(both.device.published > sent.flat().length, 'the recorders saw every chain');
  await both.port.stop();
  both.check();
}

for (let seed = 1; seed <= SEEDS; seed++) {
  const combination = combinations[seed % combinations.length]!;
  test(`seed ${seed}: ${JSON.stringify(combination)}`, () => exchange(combination, seed));
}

test.run();
