/**
 * Restarts of either side while the other runs: testpmd's ports, our back-end by SIGKILL and by the book. Traffic returns
 * each time, nothing is lost or comes twice where the stop was graceful, descriptors stay as many.
 *
 * At full counts 1,000 restarts of testpmd's ports and 100 of each back-end, otherwise 20 and 5.
 */

import { readdirSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as pause } from 'node:timers/promises';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';

import { DeviceThread } from '../../driver/backend/device-thread.js';
import { TrafficCounters } from '../../driver/cli/loopback/counters.js';
import { launch } from '../../driver/net/launch.js';
import { openPort } from '../../driver/open.js';
import type { Combination } from '../support/backend-dpdk-matrix.js';
import { BackendProcess } from '../support/backend-dpdk-process.js';
import { DpdkBackend, forward, startFrontEnd, TRAFFIC_PORT } from '../support/backend-dpdk-run.js';
import { addressesAfter } from '../support/dpdk-matrix-run.js';
import type { MatrixOrder } from '../support/dpdk-matrix-worker.js';
import { skipWithout } from '../support/skip.js';
import { withFolder } from '../support/temp-folder.js';
import { Testpmd } from '../support/testpmd.js';

export const timeBoundSeconds = 400;
export const fullTimeBoundSeconds = 7200;

const isFull = process.env['VIRTIO_PMD_FULL'] !== undefined;
const PORT_RESTARTS = isFull ? 1000 : 20;
const BACKEND_RESTARTS = isFull ? 100 : 5;
const ENOUGH = 500;
const QUEUES = 2;
const RING_SIZE = 256;

const dpdk = skipWithout(suite('restarts of the back-end and its front-end'), 'dpdk');
const own = suite('restarts of the back-end under our own front-end');

const fds = (): number => readdirSync('/proc/self/fd').length;

const COMBINATION: Combination = {
  queues: QUEUES,
  ring: 'split',
  ringSize: RING_SIZE,
  mergeable: true,
  inOrder: true,
  role: 'server',
};

/** Stops testpmd's port and starts it, with nothing under way or in the midst of traffic; asserts what that may cost. */
async function restartPort(testpmd: Testpmd, backend: DpdkBackend, isDrained: boolean): Promise<void> {
  const lost = backend.counters.totals().LOST;
  if (isDrained) await backend.drain(lost);
  await testpmd.command('stop', /\nDone\./);
  await testpmd.command('port stop all', /Stopping ports[\s\S]*Done/);
  await testpmd.command('port start all', /Checking link statuses[\s\S]*Done/);
  // A port that starts throws away what waits in its receive rings, without a word to the back-end.
  if (!isDrained) backend.giveUp();
  await testpmd.command('start', /packet forwarding - ports=1[\s\S]*testpmd> /);
  const cost = backend.counters.totals().LOST - lost;
  if (isDrained) assert.is(cost, 0, 'nothing is lost where nothing was under way');
  else assert.ok(cost <= QUEUES * RING_SIZE, `${cost} packets were under way`);
}

for (const [role, ring] of [
  ['server', 'split'],
  ['client', 'split'],
  ['server', 'packed'],
  ['client', 'packed'],
] as const) {
  dpdk(
    `back-end as ${role}, ${ring} rings: testpmd's port is stopped and started; nothing is lost that DPDK does not throw away`,
    () =>
      withFolder(async (folder) => {
        await using thread = await DeviceThread.start({ idle: 'yield', ports: [TRAFFIC_PORT] });
        const backend = new DpdkBackend(thread, folder, 0, { ...COMBINATION, role, ring }, Number.POSITIVE_INFINITY);
        let testpmd: Testpmd | undefined;
        try {
          await backend.open();
          testpmd = await startFrontEnd([backend], QUEUES);
          let before = 0;
          await forward(testpmd, backend);
          for (let restart = 0; restart <= PORT_RESTARTS; restart++) {
            backend.send();
            const { VERIFIED } = backend.counters.totals();
            const what = `traffic after ${restart} restarts`;
            await backend.until((totals) => totals.VERIFIED >= VERIFIED + ENOUGH, what);
            if (restart === 1) before = fds();
            if (restart < PORT_RESTARTS) await restartPort(testpmd, backend, restart % 2 === 0);
          }
          assert.is(fds(), before, 'descriptors');
          await backend.drain(backend.counters.totals().LOST);
          const { SENT, VERIFIED, LOST, LOST_WITH_BACKEND, REORDERED, CORRUPT } = backend.counters.totals();
          assert.equal({ LOST, REORDERED, CORRUPT }, { LOST: LOST_WITH_BACKEND, REORDERED: 0, CORRUPT: 0 });
          assert.is(VERIFIED, SENT - LOST);
        } finally {
          await testpmd?.quit();
          await backend.close();
        }
      }),
  );
}

for (const ring of ['split', 'packed'] as const) {
  dpdk(
    `virtio-user as server, ${ring} rings: our back-end is killed or closed and started again; traffic returns each time`,
    () =>
      withFolder(async (folder) => {
        const path = join(folder, 'socket');
        const rings = `queues=${QUEUES},queue_size=${RING_SIZE},packed_vq=${ring === 'packed' ? 1 : 0}`;
        const vdev = `net_virtio_user0,path=${path},${rings},server=1,mac=02:00:00:00:00:05`;
        const addresses = [...addressesAfter('macswap', { macAddress: new Uint8Array(6) })];
        let generation = 0;
        const start = (): BackendProcess => {
          const traffic = {
            queues: QUEUES,
            lengths: [64, 594, 1518],
            // What one back-end leaves behind and what the next one sends fit testpmd's rings together: it drops what does not.
            ringSize: RING_SIZE / 2,
            generation: ++generation,
            addresses,
          };
          return new BackendProcess({ path, role: 'client', queues: QUEUES, traffic });
        };
        let backend = start();
        let testpmd: Testpmd | undefined;
        try {
          testpmd = await Testpmd.start({
            vdevs: [vdev],
            options: [
              `--rxq=${QUEUES}`,
              `--txq=${QUEUES}`,
              '--port-topology=loop',
              '--forward-mode=macswap',
              '--no-flush-rx',
            ],
          });
          await testpmd.command('start', /packet forwarding - ports=1[\s\S]*testpmd> /);
          /** Packets that the last back-end had under way, when it is known. */
          let underWay: number | undefined = 0;
          for (let restart = 0; restart <= BACKEND_RESTARTS; restart++) {
            const what = `traffic after ${restart} restarts`;
            await backend.until(
              ({ totals, foreign }) => totals.VERIFIED >= ENOUGH && foreign >= (underWay ?? 0),
              `${what}, with ${underWay} packets of the one before`,
            );
            if (restart === BACKEND_RESTARTS) break;
            if (restart % 2 === 0) {
              await backend.kill();
              checkReport(backend, underWay, what);
              underWay = undefined;
              backend = start();
            } else {
              // What is in the rings when it goes is there when the next one comes.
              await testpmd.command('stop', /\nDone\./);
              backend.drain();
              await pause(100);
              const { totals } = await backend.close();
              checkReport(backend, underWay, what);
              // On packed rings virtio-user begins anew whenever a back-end comes, and throws away what is in them.
              underWay = ring === 'packed' ? undefined : totals.SENT - totals.RECEIVED;
              backend = start();
              // What is in a transmitq that is started and not yet enabled is dropped (vhost-user, "Ring states").
              await backend.until(({ enabled }) => enabled === 2 * QUEUES, 'rings are enabled');
              await testpmd.command('start', /packet forwarding - ports=1[\s\S]*testpmd> /);
            }
          }
          backend.drain();
          await backend.until(({ totals }) => totals.SENT === totals.RECEIVED, 'the last packets');
          checkReport(backend, underWay, 'the last one');
        } finally {
          await backend.kill();
          await testpmd?.quit();
        }
      }),
  );
}

dpdk(
  'virtio-user as client does not come back by itself: our back-end starts again at its path and serves the next',
  () =>
    withFolder(async (folder) => {
      const path = join(folder, 'socket');
      const vdevs = [`net_virtio_user0,path=${path},queues=1,queue_size=${RING_SIZE}`];
      const traffic = {
        queues: 1,
        lengths: [64],
        ringSize: RING_SIZE,
        addresses: [2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1],
      };
      const order = { path, role: 'server', queues: 1, traffic, waits: true } as const;
      const running: { kill(): Promise<void> }[] = [];
      const options = ['--port-topology=loop', '--no-flush-rx'];
      const startTestpmd = async (): Promise<void> => {
        const testpmd = await Testpmd.start({ vdevs, options });
        running.push(testpmd);
        await testpmd.command('start', /packet forwarding - ports=1[\s\S]*testpmd> /);
      };
      try {
        const first = new BackendProcess(order);
        running.push(first);
        await first.until(() => true, 'it listens');
        await startTestpmd();
        first.send();
        await first.until(({ totals }) => totals.VERIFIED >= ENOUGH, 'traffic');
        await first.kill();
        const second = new BackendProcess(order);
        running.push(second);
        await second.until(() => true, 'it listens where the one that was killed did');
        await startTestpmd();
        second.send();
        await second.until(({ totals }) => totals.VERIFIED >= ENOUGH, 'traffic of the next front-end');
        assert.equal(second.report?.errors, []);
      } finally {
        for (const one of running.reverse()) await one.kill();
      }
    }),
);

/** Asserts that a back-end lost nothing of its own, and got what the one before had under way. */
function checkReport(backend: BackendProcess, underWay: number | undefined, what: string): void {
  const { totals, foreign, errors } = backend.report!;
  const { LOST, REORDERED, CORRUPT } = totals;
  assert.equal({ LOST, REORDERED, CORRUPT }, { LOST: 0, REORDERED: 0, CORRUPT: 0 }, what);
  assert.equal(errors, [], what);
  if (underWay !== undefined) assert.is(foreign, underWay, `${what}: what was under way comes back, once`);
  else assert.ok(foreign <= 2 * QUEUES * RING_SIZE, `${what}: ${foreign}`);
}

own('our front-end with reconnect: traffic returns each time; a kill costs what is in the rings at most', () =>
  withFolder(async (folder) => {
    const path = join(folder, 'socket');
    const counters = TrafficCounters.create(QUEUES);
    const start = (): BackendProcess => new BackendProcess({ path, role: 'server', queues: QUEUES });
    let backend = start();
    const port = await openWhenThere(path);
    const order: MatrixOrder = {
      memory: counters.memory,
      queues: QUEUES,
      packets: 1e12,
      lengths: [64, 594, 1518],
      ringSize: RING_SIZE,
      addresses: addressesAfter('io', { macAddress: new Uint8Array(6) }),
    };
    const worker = new URL('../support/dpdk-matrix-worker.js', import.meta.url);
    try {
      await port.start();
      const traffic = await launch(port, worker, { threads: 1, data: order });
      try {
        let before = 0;
        for (let restart = 0; restart <= BACKEND_RESTARTS; restart++) {
          await returns(counters, `traffic after ${restart} restarts`);
          if (restart === 1) before = fds();
          if (restart === BACKEND_RESTARTS) break;
          const lost = counters.totals().LOST_WITH_BACKEND;
          await backend.kill();
          backend = start();
          await returns(counters, `traffic after restart ${restart + 1}`);
          const cost = counters.totals().LOST_WITH_BACKEND - lost;
          assert.ok(cost <= QUEUES * RING_SIZE, `restart ${restart + 1} cost ${cost} packets`);
        }
        assert.is(fds(), before, 'descriptors');
        const { LOST, LOST_WITH_BACKEND, REORDERED, CORRUPT } = counters.totals();
        assert.equal({ LOST, REORDERED, CORRUPT }, { LOST: LOST_WITH_BACKEND, REORDERED: 0, CORRUPT: 0 });
      } finally {
        await traffic.stop();
      }
    } finally {
      await port.close();
      await backend.kill();
    }
  }),
);

/** Opens a port at a back-end that is being started. */
async function openWhenThere(path: string): ReturnType<typeof openPort> {
  for (const end = performance.now() + 30_000; ; ) {
    try {
      return await openPort(`vhost-user:${path}`, { queues: QUEUES, ringSize: RING_SIZE, reconnect: true });
    } catch (error) {
      if (performance.now() > end) throw error;
      await pause(50);
    }
  }
}

/** Waits until packets come back. */
async function returns(counters: TrafficCounters, what: string): Promise<void> {
  const { VERIFIED } = counters.totals();
  for (const end = performance.now() + 30_000; counters.totals().VERIFIED < VERIFIED + ENOUGH; ) {
    assert.ok(performance.now() < end, `${what}: ${JSON.stringify(counters.totals())}`);
    await pause(10);
  }
}

dpdk.run();
own.run();
