/**
 * Single queues of our driver, stopped and started again, with DPDK's `net_vhost` on the other side: it cannot stop single rings,
 * so the stop is software alone, and the other pair goes on.
 */

import { setTimeout as delay } from 'node:timers/promises';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';

import type { Port } from '../../driver/net/port.js';
import { openPort } from '../../driver/open.js';
import { Feature } from '../../driver/spec/features.js';
import { MatrixPeer } from '../support/dpdk-matrix-peer.js';
import { skipWithout } from '../support/skip.js';
import { withFolder } from '../support/temp-folder.js';

export const timeBoundSeconds = 120;

const test = skipWithout(suite('single queues, with DPDK'), 'dpdk');
const ANSWER_MS = 10_000;
const PATIENCE_MS = 10_000;
const BYTES = 60;

/** Sends packets on a pair until as many have come back; DPDK takes a moment to take a ring up. */
async function roundTrips(port: Port, pair: number, packets = 50): Promise<void> {
  const burst = port.burst(8);
  const until = performance.now() + PATIENCE_MS;
  for (let received = 0; received < packets; ) {
    assert.ok(performance.now() < until, `pair ${pair}: ${received} came back: ${JSON.stringify(port.statistics())}`);
    burst.allocate(4);
    for (let index = 0; index < burst.count; index++) burst.bytes(index).setLength(BYTES);
    port.txQueue(pair).send(burst);
    burst.free();
    received += port.rxQueue(pair).receive(burst);
    burst.free();
    await delay(1);
  }
}

for (const ring of ['split', 'packed'] as const) {
  test(`${ring}: receive and transmit queue of a pair stop and go on; the other pair never rests`, () =>
    withFolder(async (folder) => {
      const peer = await MatrixPeer.start(folder, 'server', 2);
      try {
        await peer.forward('macswap');
        const options = { queues: 2, ringSize: 256, ring, timeoutMs: ANSWER_MS };
        const port = await openPort(`vhost-user:${peer.path}`, options);
        try {
          await port.start();
          for (const pair of [0, 1]) await roundTrips(port, pair);
          assert.not(port.features?.has(Feature.RING_RESET), 'nobody said that it can');
          for (let round = 0; round < 3; round++) {
            for (const direction of ['rx', 'tx'] as const) {
              await port.stopQueue(direction, 1);
              await roundTrips(port, 0);
              await port.startQueue(direction, 1);
              await roundTrips(port, 1);
            }
          }
          for (const pair of [0, 1]) {
            assert.is(port.rxQueue(pair).broken, undefined);
            assert.is(port.txQueue(pair).broken, undefined);
          }
        } finally {
          await port.close();
        }
      } finally {
        await peer.quit();
      }
    }));
}

test.run();
