/** Single queues of a port: stopped, started and resized while others move packets (virtio 1.2 §2.6, spec-D18). */

import { setTimeout as delay } from 'node:timers/promises';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { DeviceThread } from '../../driver/backend/device-thread.js';
import { EmulatedPciFunction } from '../../driver/backend/emulated-pci-function.js';
import { NetDevice } from '../../driver/backend/net-device.js';
import { echoPort } from '../../driver/backend/ports/built-in.js';
import { VhostUserServer } from '../../driver/backend/vhost-user-server.js';
import { ErrorCode, VirtioError } from '../../driver/errors.js';
import { PacketField } from '../../driver/memory/packet-fields.js';
import { launch } from '../../driver/net/launch.js';
import { Port } from '../../driver/net/port.js';
import type { PortOptions } from '../../driver/net/port-options.js';
import type { QueueDirection } from '../../driver/net/port-queue-control.js';
import type { RemotePort } from '../../driver/net/port-threads.js';
import { Feature } from '../../driver/spec/features.js';
import type { Transport } from '../../driver/spec/transport.js';
import { PciModernTransport } from '../../driver/transport/pci-modern.js';
import { VhostUserTransport } from '../../driver/transport/vhost-user.js';
import { withFolder } from '../support/temp-folder.js';

export const timeBoundSeconds = 200;

const test = suite('single queues');

interface Bench {
  readonly port: Port;
  readonly transport: Transport;
}

type Way = 'pci' | 'vhost-user';

/** Runs a body with a port of two pairs over an echoing device of ours, and looks that nothing is lost in the end. */
async function withPort(
  way: Way,
  body: (bench: Bench) => Promise<void>,
  options: PortOptions = {},
  without: readonly Feature[] = [],
): Promise<void> {
  await withFolder(async (folder) => {
    const echo = echoPort();
    await using thread = await DeviceThread.start({ idle: 'yield', ports: [new URL(echo.module)] });
    await using device = new NetDevice(thread, { port: echo, queuePairs: 2, without });
    let transport: Transport;
    let server: VhostUserServer | undefined;
    let fn: EmulatedPciFunction | undefined;
    if (way === 'pci') {
      fn = new EmulatedPciFunction(device);
      transport = PciModernTransport.open(fn);
    } else {
      server = await VhostUserServer.listen(`${folder}/s`, { createDevice: () => device });
      transport = await VhostUserTransport.open(`${folder}/s`, { queuePairs: 2, ringReset: true });
    }
    const port = new Port(transport, { queues: 2, ringSize: 64, ...options });
    const { available } = port.pool;
    try {
      await port.start();
      await body({ port, transport });
      await port.stop();
      assert.is(port.pool.available, available, 'every buffer is back');
      assert.equal(fn?.violations ?? [], []);
      assert.equal(fn?.failures ?? [], []);
    } finally {
      await port.close();
      await fn?.closed;
      await server?.close();
    }
  });
}

function send(port: Port, pair: number, packets: number): number {
  const burst = port.burst(packets);
  assert.ok(port.pool.allocate(burst.handles, 0, packets), 'the pool has buffers');
  burst.count = packets;
  for (const handle of burst.handles.subarray(0, packets)) {
    port.pool.fields[handle * PacketField.WORDS + PacketField.SEGMENT_LENGTH] = 60;
  }
  const sent = port.txQueue(pair).send(burst);
  burst.free();
  return sent;
}

/** Receives until `packets` are there, or nothing comes any more. */
async function receive(port: Port, pair: number, packets: number, patienceMs = 5000): Promise<number> {
  const burst = port.burst(32);
  let received = 0;
  const until = performance.now() + patienceMs;
  while (received < packets && performance.now() < until) {
    received += port.rxQueue(pair).receive(burst);
    burst.free();
    await delay(1);
  }
  return received;
}

async function roundTrip(port: Port, pair: number, packets = 20): Promise<void> {
  assert.is(send(port, pair, packets), packets, `pair ${pair} sends`);
  assert.is(await receive(port, pair, packets), packets, `pair ${pair} receives`);
}

const codeOf = (promise: Promise<unknown>): Promise<string> =>
  promise.then(
    () => 'nothing',
    (error: VirtioError) => error.code,
  );

for (const way of ['pci', 'vhost-user'] as const) {
  for (const ring of ['split', 'packed'] as const) {
    test(`${way}, ${ring}: each queue of a pair stops and starts again, over rings of other sizes; the other pair goes on`, () =>
      withPort(
        way,
        async ({ port }) => {
          assert.ok(port.features?.has(Feature.RING_RESET));
          await roundTrip(port, 0);
          await roundTrip(port, 1);
          const sizes = ring === 'packed' ? [64, 5, 33] : [64, 4, 32];
          for (const direction of ['rx', 'tx'] satisfies QueueDirection[]) {
            for (const ringSize of sizes) {
              await port.stopQueue(direction, 1);
              assert.not(port.isQueueStarted(direction, 1));
              assert.ok(port.isQueueStarted(direction, 0));
              await roundTrip(port, 0);
              if (direction === 'tx') assert.is(send(port, 1, 3), 0, 'a queue that is stopped takes nothing');
              else assert.is(port.rxQueue(1).receive(port.burst(8)), 0);
              await port.startQueue(direction, 1, { ringSize });
              assert.ok(port.isQueueStarted(direction, 1));
              assert.is(port.handle().session?.[direction][1]?.ring.size, ringSize);
              for (let round = 0; round < 5; round++) await roundTrip(port, 1, 4);
              await roundTrip(port, 0);
            }
          }
        },
        { ring },
      ));
  }

  test(`${way}: buffers of a stopped queue are in the pool, packets that were not sent are counted`, () =>
    withPort(way, async ({ port }) => {
      await roundTrip(port, 0);
      await port.stopQueue('rx', 0);
      port.pool.flush();
      const { available } = port.pool;
      await port.startQueue('rx', 0);
      port.rxQueue(0).receive(port.burst(1));
      port.pool.flush();
      assert.is(available - port.pool.available, 64, 'the ring is full again');
      await roundTrip(port, 0);
      // The device stands still for this pair once nothing takes what it echoes: what it has not read is lost.
      await port.stopQueue('rx', 0);
      for (let round = 0; round < 20; round++) {
        send(port, 0, 32);
        await delay(1);
      }
      const { inFlight } = port.txQueue(0);
      await port.stopQueue('tx', 0);
      const { lostInFlight } = port.statistics().tx[0]!.drops;
      assert.ok(inFlight > 0 && lostInFlight > 0 && lostInFlight <= inFlight, `${lostInFlight} of ${inFlight}`);
      await port.startQueue('tx', 0);
      await port.startQueue('rx', 0);
      assert.is(send(port, 0, 32), 32, 'the ring is empty');
    }));

  test(`${way}: a queue that is stopped is started by the port's next start, with the port's size`, () =>
    withPort(way, async ({ port }) => {
      await roundTrip(port, 1);
      await port.stopQueue('tx', 1);
      await port.startQueue('tx', 1, { ringSize: 8 });
      await port.stopQueue('rx', 1);
      await port.stop();
      assert.not(port.isQueueStarted('tx', 1));
      assert.is(await codeOf(port.stopQueue('rx', 0)), ErrorCode.WRONG_STATE);
      await port.start();
      assert.ok(port.isQueueStarted('rx', 1));
      assert.is(port.handle().session?.tx[1]?.ring.size, 64);
      await roundTrip(port, 1);
    }));
}

test('a stop that is a stop already, a start that is none, and what cannot be', () =>
  withPort('pci', async ({ port }) => {
    await port.startQueue('rx', 0);
    await port.startQueue('rx', 0, { ringSize: 64 });
    assert.is(await codeOf(port.startQueue('rx', 0, { ringSize: 32 })), ErrorCode.WRONG_STATE);
    assert.is(await codeOf(port.stopQueue('rx', 2)), ErrorCode.INVALID_ARGUMENT);
    await port.stopQueue('rx', 0);
    await port.stopQueue('rx', 0);
    for (const ringSize of [0, 3, 48, 128, 1e9, Number.NaN]) {
      assert.is(await codeOf(port.startQueue('rx', 0, { ringSize })), ErrorCode.INVALID_ARGUMENT, `${ringSize}`);
    }
    assert.not(port.isQueueStarted('rx', 0));
    await port.startQueue('rx', 0);
    await roundTrip(port, 0);
  }));

test('without RING_RESET a stop is software alone: the queue goes on where it stood, and keeps its size', () =>
  withPort(
    'pci',
    async ({ port }) => {
      assert.not(port.features?.has(Feature.RING_RESET));
      await roundTrip(port, 0);
      await port.stopQueue('rx', 0);
      assert.is(send(port, 0, 10), 10);
      await delay(50);
      assert.is(port.rxQueue(0).receive(port.burst(16)), 0, 'nobody polls it');
      assert.is(await codeOf(port.startQueue('rx', 0, { ringSize: 8 })), ErrorCode.UNSUPPORTED);
      await port.startQueue('rx', 0);
      assert.is(await receive(port, 0, 10), 10, 'what came in between is there');
      await port.stopQueue('tx', 0);
      assert.is(send(port, 0, 1), 0);
      await roundTrip(port, 1);
      await port.startQueue('tx', 0);
      await roundTrip(port, 0);
      await port.stopQueue('tx', 0);
    },
    {},
    [Feature.RING_RESET],
  ));

test('a device that does not let go of a queue: its buffers stay with it until the port is stopped', () =>
  withPort('pci', async ({ port, transport }) => {
    await roundTrip(port, 0);
    port.pool.flush();
    const { available } = port.pool;
    const reset = transport.resetQueue!.bind(transport);
    transport.resetQueue = async (index) => {
      await reset(index);
      throw new VirtioError(ErrorCode.TIMEOUT, 'the queue does not let go');
    };
    assert.is(await codeOf(port.stopQueue('rx', 0)), ErrorCode.TIMEOUT);
    port.pool.flush();
    assert.is(port.pool.available, available, 'nothing came back');
    assert.is(await codeOf(port.startQueue('rx', 0)), ErrorCode.WRONG_STATE);
    await roundTrip(port, 1);
    transport.resetQueue = reset;
    await port.stop();
    await port.start();
    await roundTrip(port, 0);
  }));

test('a stop that failed half-way, wherever, is tried again: it goes on where it stood', () =>
  withPort('pci', async ({ port, transport }) => {
    await roundTrip(port, 0);
    port.pool.flush();
    const { available } = port.pool;
    const nothing = async (): Promise<void> => undefined;
    const failure = new VirtioError(ErrorCode.TIMEOUT, 'it hangs');
    const remote: RemotePort = {
      quiesce: nothing,
      release: nothing,
      leave: nothing,
      resume: nothing,
      stopQueue: nothing,
      reclaimQueue: nothing,
      startQueue: nothing,
    };
    const remove = port.addRemote(remote);
    for (const [object, step] of [
      [remote, 'stopQueue'],
      [transport, 'resetQueue'],
      [remote, 'reclaimQueue'],
    ] as const) {
      const works = Reflect.get(object, step);
      Reflect.set(object, step, () => Promise.reject(failure));
      assert.is(await codeOf(port.stopQueue('rx', 0)), ErrorCode.TIMEOUT, step);
      const resized = await port.startQueue('rx', 0, { ringSize: 32 }).catch((error) => error);
      assert.is(resized.code, ErrorCode.WRONG_STATE, step);
      assert.not.match(resized.message, /has no RING_RESET|runs/);
      Reflect.set(object, step, works);
      await port.stopQueue('rx', 0);
      port.pool.flush();
      assert.ok(port.pool.available > available, `${step}: the buffers are back`);
      await port.startQueue('rx', 0, { ringSize: 32 });
      await roundTrip(port, 0);
      await port.stopQueue('rx', 0);
      await port.startQueue('rx', 0, { ringSize: 64 });
      await roundTrip(port, 0);
    }
    remove();
  }));

for (const way of ['pci', 'vhost-user'] as const) {
  test(`${way}: poll threads follow; the traffic of a pair comes back after fifty stops, starts and sizes, the other never rests`, () =>
    withPort(way, async ({ port }) => {
      const counts = new SharedArrayBuffer(2 * 4);
      const threads = await launch(port, new URL('../support/queue-traffic-worker.js', import.meta.url), {
        threads: 2,
        data: counts,
      });
      const received = new Int32Array(counts);
      const moves = async (pair: number): Promise<void> => {
        const before = Atomics.load(received, pair);
        for (let waited = 0; waited < 10_000; waited += 2) {
          if (Atomics.load(received, pair) > before + 50) return;
          await delay(2);
        }
        assert.unreachable(`pair ${pair} stands still: ${JSON.stringify(port.statistics())}`);
      };
      await moves(0);
      await moves(1);
      for (let round = 0; round < 25; round++) {
        for (const direction of ['rx', 'tx'] satisfies QueueDirection[]) {
          await port.stopQueue(direction, 1);
          if (round % 5 === 0) await moves(0);
          await port.startQueue(direction, 1, { ringSize: 2 ** (2 + (round % 5)) });
        }
        if (round % 5 === 0) await moves(1);
      }
      await moves(0);
      await moves(1);
      await threads.stop();
    }));
}

test.run();
