/** Forwarding by testpmd's lcores between software devices: start, statistics, stop, another start. */

import { setTimeout as delay } from 'node:timers/promises';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import type { EthernetDevice } from '../../driver/cli/testpmd/devices/ethernet-device.js';
import { NullDevice } from '../../driver/cli/testpmd/devices/null-device.js';
import { RingDevice } from '../../driver/cli/testpmd/devices/ring-device.js';
import { planForwarding } from '../../driver/cli/testpmd/forward-plan.js';
import { Forwarding } from '../../driver/cli/testpmd/forwarding.js';
import type { ForwardMode } from '../../driver/cli/testpmd/lcore/forward-settings.js';
import { StreamCounter } from '../../driver/cli/testpmd/lcore/stream.js';
import { createPool } from '../../driver/net/create-pool.js';
import { plainPort, plainSettings } from '../support/forward-engine.js';

const test = suite('testpmd forwarding');

const POOL = 2048;
const ports = new Map([
  [0, plainPort],
  [1, plainPort],
]);

function stand(devargs = '') {
  const pool = createPool({ size: POOL, bufferBytes: 2176, pages: '4K' });
  const forwarding = new Forwarding({ pool, cpuOf: () => undefined, print: () => undefined });
  const devices = new Map<number, EthernetDevice>([
    [0, new NullDevice('net_null0', devargs, pool.dataBytes)],
    [1, new RingDevice('net_ring0', '', pool)],
  ]);
  const plan = (forwardMode: ForwardMode, lcores: number[], queues = 1) =>
    planForwarding({ forwardMode, topology: 'paired', rxQueues: queues, txQueues: queues }, [0, 1], lcores);
  const close = async (): Promise<void> => {
    await forwarding.close();
    for (const device of devices.values()) await device.close();
    pool.flush();
    assert.is(pool.available, POOL, 'every packet is back in the pool');
    pool.memory.close();
  };
  return { pool, forwarding, devices, plan, close };
}

const counted = (forwarding: Forwarding, counter: number): number[] =>
  forwarding.streams.map(({ counters }) => counters[counter]!);

for (const lcores of [[1], [1, 2]]) {
  test(`io moves packets between two ports on ${lcores.length} lcores, and stops with all of them accounted for`, async () => {
    const { forwarding, devices, plan, close } = stand();
    const settings = { ...plainSettings, ports };
    let ready = 0;
    await forwarding.start(plan('io', lcores), settings, {
      devices,
      // An endless port is left after a second, in each of two rounds.
      flush: lcores.length === 1,
      txFirst: 0,
      onReady: () => {
        ready += 1;
      },
    });
    assert.is(ready, 1);
    assert.ok(forwarding.isRunning);
    while (counted(forwarding, StreamCounter.TX_PACKETS).some((packets) => packets < 1000)) await delay(5);
    await forwarding.stop();
    assert.not.ok(forwarding.isRunning);
    const [rx0, rx1] = counted(forwarding, StreamCounter.RX_PACKETS);
    const [tx0, tx1] = counted(forwarding, StreamCounter.TX_PACKETS);
    const [drop0, drop1] = counted(forwarding, StreamCounter.FWD_DROPPED);
    assert.is(rx0, tx0! + drop0!);
    assert.is(rx1, tx1! + drop1!);
    assert.is(devices.get(1)!.statistics().txPackets, tx0);
    await close();
  });
}

test('start tx_first sends its bursts with txonly, then forwards', async () => {
  const { forwarding, devices, plan, close } = stand('no-rx=1');
  await forwarding.start(plan('io', [1]), { ...plainSettings, ports }, { devices, flush: false, txFirst: 3 });
  // What the stream to the ring sent comes round once, and goes to the null port, which keeps it.
  while (counted(forwarding, StreamCounter.RX_PACKETS)[1]! < 96) await delay(5);
  await forwarding.stop();
  assert.equal(counted(forwarding, StreamCounter.TX_PACKETS), [96, 192]);
  await close();
});

test('a reset of the statistics while packets are forwarded begins at nothing', async () => {
  const { forwarding, devices, plan, close } = stand('no-rx=1');
  await forwarding.start(plan('io', [1]), { ...plainSettings, ports }, { devices, flush: false, txFirst: 1 });
  while (counted(forwarding, StreamCounter.RX_PACKETS)[1]! < 32) await delay(5);
  forwarding.resetStatistics();
  assert.equal(counted(forwarding, StreamCounter.TX_PACKETS), [0, 0]);
  await close();
});

test('another start may have other modes, lcores and queues; a port that was released is put on anew', async () => {
  const { forwarding, devices, plan, close } = stand();
  const settings = { ...plainSettings, ports };
  for (const [mode, lcores, queues] of [
    ['rxonly', [1], 1],
    ['macswap', [1, 2], 2],
    ['txonly', [2], 2],
  ] as const) {
    await forwarding.start(
      plan(mode, [...lcores], queues),
      { ...settings, mode },
      { devices, flush: false, txFirst: 0 },
    );
    await forwarding.update({ ...settings, mode, burst: 8 });
    await delay(20);
    await forwarding.stop();
    await forwarding.release(1);
  }
  await close();
});

test('a stream whose queues are not started stands still', async () => {
  const { forwarding, devices, plan, close } = stand();
  const isEnabled = ({ rxPort }: { rxPort: number }): boolean => rxPort === 1;
  await forwarding.start(
    plan('io', [1]),
    { ...plainSettings, ports },
    { devices, flush: false, txFirst: 0, isEnabled },
  );
  await delay(20);
  await forwarding.stop();
  assert.equal(counted(forwarding, StreamCounter.RX_PACKETS), [0, 0]);
  await close();
});

test.run();
