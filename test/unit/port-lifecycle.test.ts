/** A port's start, stop, faults and close, over a transport whose device is the test. */

import { readdirSync, readFileSync } from 'node:fs';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { ErrorCode, VirtioError } from '../../driver/errors.js';
import { createPool } from '../../driver/net/create-pool.js';
import { Port } from '../../driver/net/port.js';
import type { PortOptions } from '../../driver/net/port-options.js';
import { AVAIL_INDEX } from '../../driver/ring/split-views.js';
import { Feature } from '../../driver/spec/features.js';
import { virtioNetConfig } from '../../driver/spec/net-config.js';
import { Status } from '../../driver/spec/status.js';
import { native } from '../../native/index.js';
import { ScriptedTransport } from '../support/scripted-transport.js';

const test = suite('port over a scripted device');

async function withPort(
  body: (port: Port, transport: ScriptedTransport) => Promise<void>,
  options: PortOptions = {},
): Promise<void> {
  const transport = new ScriptedTransport();
  const port = new Port(transport, { ringSize: 64, pages: '4K', ...options });
  try {
    await body(port, transport);
  } finally {
    await port.close().catch(() => undefined);
  }
}

async function codeOf(promise: Promise<unknown>): Promise<string> {
  try {
    await promise;
    return 'none';
  } catch (error) {
    return error instanceof VirtioError ? error.code : String(error);
  }
}

/** Puts `count` packets of 60 bytes on the wire. */
function send(port: Port, count: number): number {
  const burst = port.burst(64);
  assert.is(burst.allocate(count), count);
  for (let index = 0; index < count; index++) burst.bytes(index).setLength(60);
  const sent = port.txQueue(0).send(burst);
  burst.free();
  return sent;
}

/** Open descriptors, and mappings of our memory. */
const resources = (): string =>
  `${readdirSync('/proc/self/fd').length} ${readFileSync('/proc/self/maps', 'utf8').split('virtio-pmd').length}`;

test('start, stop and start again: queues stay, buffers come back', () =>
  withPort(async (port, transport) => {
    const { available } = port.pool;
    const rx = port.rxQueue(0);
    const tx = port.txQueue(0);
    for (let round = 0; round < 3; round++) {
      assert.is(port.state, 'stopped');
      await port.start();
      assert.is(port.state, 'started');
      assert.is(port.rxQueue(0), rx);
      assert.is(port.pool.available, available - 64, 'the receive ring is full');
      assert.is(send(port, 5), 5);
      assert.is(tx.inFlight, 5);
      await port.stop();
      assert.is(port.pool.available, available);
      assert.is(transport.sharedRanges, 0);
      assert.is(send(port, 5), 0, 'a stopped port sends nothing');
      assert.is(port.pool.available, available);
    }
    assert.is(port.statistics().tx[0]?.drops.lostInFlight, 15);
  }));

test('spec-D1: the status goes up bit by bit, with the features between', () =>
  withPort(async (port, transport) => {
    await port.start();
    const { ACKNOWLEDGE, DRIVER, FEATURES_OK, DRIVER_OK } = Status;
    const steps = transport.calls.filter((call) => /status|reset|offered|accept|setUpQueue/.test(call));
    assert.equal(steps, [
      'reset',
      `status ${ACKNOWLEDGE}`,
      `status ${ACKNOWLEDGE | DRIVER}`,
      'offered',
      'accept',
      `status ${ACKNOWLEDGE | DRIVER | FEATURES_OK}`,
      'setUpQueue',
      'setUpQueue',
      `status ${ACKNOWLEDGE | DRIVER | FEATURES_OK | DRIVER_OK}`,
    ]);
  }));

test('a start that fails anywhere leaves nothing behind: the next one works', () =>
  withPort(async (port, transport) => {
    const { available } = port.pool;
    for (const call of ['reset', 'offered', 'accept', 'readConfig', 'shareMemory', 'setUpQueue'] as const) {
      for (const skip of [0, 1]) {
        let left = skip;
        transport.hooks.set(call, () => {
          if (left-- === 0) throw new VirtioError(ErrorCode.IO, `${call} fails`);
        });
        const code = await codeOf(port.start());
        transport.hooks.clear();
        if (code === 'none') {
          // The call comes only once.
          await port.stop();
          continue;
        }
        assert.is(code, ErrorCode.IO, `${call} after ${skip}`);
        assert.is(port.state, 'stopped');
        assert.is(transport.sharedRanges, 0, `${call} after ${skip}: the device keeps no memory`);
        await port.start();
        assert.is(send(port, 3), 3);
        await port.stop();
        assert.is(port.pool.available, available);
      }
    }
  }));

test('spec-D3: a device that refuses the features: FAILED, reset, no queue set up', () =>
  withPort(async (port, transport) => {
    const { ACKNOWLEDGE, DRIVER, FEATURES_OK, FAILED } = Status;
    const setStatus = transport.setStatus.bind(transport);
    transport.setStatus = (status) => setStatus(status & ~FEATURES_OK);
    assert.is(await codeOf(port.start()), ErrorCode.NEGOTIATION_FAILED);
    assert.is(transport.calls.includes('setUpQueue'), false);
    const failed = transport.calls.indexOf(`status ${ACKNOWLEDGE | DRIVER | FAILED}`);
    assert.ok(failed > 0);
    assert.ok(transport.calls.indexOf('reset', failed) > failed);
  }));

test('a device that asks for a reset: the port fails, says so, and can be started again', () =>
  withPort(async (port, transport) => {
    const { available } = port.pool;
    for (let round = 0; round < 3; round++) {
      await port.start();
      send(port, 4);
      const fault = new Promise<VirtioError>((resolve) => port.once('fault', resolve));
      transport.onEvent?.({ type: 'needs-reset' });
      assert.is((await fault).code, ErrorCode.DEVICE_BROKEN);
      assert.is(port.state, 'failed');
      assert.is(port.pool.available, available, 'the buffers are back');
      assert.is(transport.sharedRanges, 0);
    }
    await port.start();
    assert.is(send(port, 4), 4);
  }));

test('a device that goes away: a fault, or a wait for it to come back', async () => {
  await withPort(async (port, transport) => {
    await port.start();
    const fault = new Promise<VirtioError>((resolve) => port.once('fault', resolve));
    transport.onEvent?.({ type: 'gone', reason: 'unplugged' });
    assert.is((await fault).code, ErrorCode.PEER_GONE);
    assert.is(port.state, 'failed');
  });
  await withPort(
    async (port, transport) => {
      const { available } = port.pool;
      await port.start();
      for (let round = 0; round < 3; round++) {
        send(port, 4);
        const down = new Promise((resolve) => port.once('link', resolve));
        transport.onEvent?.({ type: 'gone', reason: 'restarted' });
        assert.is(await down, false);
        assert.is(port.state, 'disconnected');
        assert.is(port.pool.available, available);
        assert.is(send(port, 4), 0);
        const up = new Promise((resolve) => port.once('link', resolve));
        transport.onEvent?.({ type: 'back' });
        assert.is(await up, true);
        assert.is(port.state, 'started');
        assert.is(send(port, 4), 4);
      }
    },
    { reconnect: true },
  );
});

test('a device that goes away while a thread gives nothing back: it keeps no memory, and the link is down', () =>
  withPort(
    async (port, transport) => {
      const nothing = async (): Promise<void> => undefined;
      const hangs = () => Promise.reject(new VirtioError(ErrorCode.TIMEOUT, 'a thread hangs'));
      await port.start();
      const queues = { stopQueue: nothing, reclaimQueue: nothing, startQueue: nothing };
      const remove = port.addRemote({ quiesce: hangs, release: hangs, leave: nothing, resume: nothing, ...queues });
      const links: boolean[] = [];
      port.on('link', (up) => links.push(up));
      transport.onEvent?.({ type: 'gone', reason: 'restarted' });
      // In turn: done when the event is.
      await port.setMtu(1400);
      assert.equal([port.state, port.linkUp, links], ['disconnected', false, [false]]);
      assert.is(transport.sharedRanges, 0);
      remove();
      transport.onEvent?.({ type: 'back' });
      await port.setMtu(1400).catch(() => undefined);
      assert.is(port.state, 'started');
    },
    { reconnect: true },
  ));

test('a device that is unplugged is given back at once, whatever it was asked before and has not answered', () =>
  withPort(async (port, transport) => {
    transport.features = transport.features.with(Feature.CTRL_VQ, Feature.CTRL_RX);
    await port.start();
    const cut = codeOf(port.control.setPromiscuous(true));
    const fault = new Promise<VirtioError>((resolve) => port.once('fault', resolve));
    const began = performance.now();
    transport.onEvent?.({ type: 'unplug' });
    assert.is((await fault).code, ErrorCode.PEER_GONE);
    assert.ok(performance.now() - began < 3000, 'at once');
    assert.is(await cut, ErrorCode.WRONG_STATE);
    assert.is(transport.isClosed, true);
  }));

test('spec-D4, spec-D31: from the moment a reset begins nothing is posted and no doorbell rings', () =>
  withPort(async (port, transport) => {
    await port.start();
    send(port, 3);
    const rings = [0, 1].map((index) => transport.ring(index));
    const [rxBell, txBell] = transport.doorbells as [number, number];
    for (const fd of [rxBell, txBell]) native.drainEventFd(fd);
    const before = rings.map(({ avail }) => avail[AVAIL_INDEX]);
    const burst = port.burst(32);
    let polled = 0;
    transport.hooks.set('reset', () => {
      // The application polls on: it does not know.
      for (let turn = 0; turn < 10; turn++) {
        polled++;
        port.rxQueue(0).receive(burst);
        assert.is(send(port, 2), 0, 'nothing is sent');
      }
      assert.equal(
        rings.map(({ avail }) => avail[AVAIL_INDEX]),
        before,
        'nothing is posted',
      );
      assert.equal([native.drainEventFd(rxBell), native.drainEventFd(txBell)], [0n, 0n], 'no doorbell rings');
    });
    await port.stop();
    assert.ok(polled > 0);
  }));

test('buffers that a device may still write come back only after its reset', () =>
  withPort(async (port, transport) => {
    const { available } = port.pool;
    await port.start();
    port.rxQueue(0);
    send(port, 3);
    transport.hooks.set('reset', () =>
      assert.ok(port.pool.available <= available - 64 - 3, "they are still the device's"),
    );
    await port.stop();
    assert.is(port.pool.available, available);
  }));

test('a device that cannot be reset: stop fails with its error, close closes all the same', async () => {
  const before = resources();
  const transport = new ScriptedTransport();
  const port = new Port(transport, { ringSize: 64, pages: '4K' });
  await port.start();
  transport.hooks.set('reset', () => {
    throw new VirtioError(ErrorCode.TIMEOUT, 'stuck');
  });
  assert.is(await codeOf(port.stop()), ErrorCode.TIMEOUT);
  await codeOf(port.close());
  assert.is(port.state, 'closed');
  assert.is(transport.isClosed, true);
  assert.is(resources(), before);
});

test('what stands below a port is let go of, all of it, whatever fails', async () => {
  const before = resources();
  const disposed: number[] = [];
  const resource = (number: number): AsyncDisposable => ({
    [Symbol.asyncDispose]: async () => {
      disposed.push(number);
      if (number === 0) throw new VirtioError(ErrorCode.IO, 'disk full');
    },
  });
  const transport = new ScriptedTransport();
  const port = new Port(transport, { ringSize: 64, pages: '4K', resources: [resource(0), resource(1)] });
  await port.start();
  assert.is(await codeOf(port.close()), ErrorCode.IO);
  assert.equal(disposed, [0, 1]);
  assert.is(port.state, 'closed');
  assert.is(resources(), before);
});

test('nothing is left open: descriptors and mappings over many ports, started, failed or never started', async () => {
  const round = async (): Promise<void> => {
    await withPort(async (port) => {
      await port.start();
      send(port, 3);
      await port.stop();
      await port.start();
    });
    await withPort(async (port, transport) => {
      transport.features = transport.features.without(Feature.VERSION_1);
      assert.is(await codeOf(port.start()), ErrorCode.FEATURE_MISSING);
    });
    await withPort(async () => undefined);
  };
  await round();
  const before = resources();
  for (let number = 0; number < 10; number++) await round();
  assert.is(resources(), before);
});

test('the wrong call at the wrong time', () =>
  withPort(async (port) => {
    await port.stop();
    await port.start();
    assert.is(await codeOf(port.start()), ErrorCode.WRONG_STATE);
    await port.close();
    await port.close();
    assert.is(await codeOf(port.start()), ErrorCode.WRONG_STATE);
    assert.is(await codeOf(port.stop()), ErrorCode.WRONG_STATE);
    assert.throws(
      () => port.rxQueue(0),
      (error: VirtioError) => error.code === ErrorCode.WRONG_STATE,
    );
  }));

test('queue pairs that are not there', () =>
  withPort(async (port) => {
    for (const pair of [1, -1, 0.5, Number.NaN, 1e9]) {
      for (const queue of ['rxQueue', 'txQueue'] as const) {
        assert.throws(
          () => port[queue](pair),
          (error: VirtioError) => error.code === ErrorCode.INVALID_ARGUMENT,
          `${queue}(${pair})`,
        );
      }
    }
    port.rxQueue(0);
  }));

test('options that cannot work', () => {
  for (const options of [
    { queues: 0 },
    { queues: 129 },
    { queues: 1.5 },
    { ringSize: 0 },
    { ringSize: 2 },
    { ringSize: 100 },
    { ringSize: 65_536 },
    { ringSize: Number.NaN },
    // More memory than one pool can have.
    { queues: 128, ringSize: 32_768 },
  ]) {
    const before = resources();
    assert.throws(
      () => new Port(new ScriptedTransport(), { pages: '4K', ...options }),
      (error: VirtioError) => error.code === ErrorCode.INVALID_ARGUMENT,
      JSON.stringify(options),
    );
    assert.is(resources(), before);
  }
});

test('a device with smaller rings than were wanted', () =>
  withPort(async (port, transport) => {
    for (const size of [1, 2, 4, 32]) {
      transport.queueSize = size;
      await port.start();
      assert.is(transport.queues.get(0)?.size, size);
      assert.is(transport.queues.get(1)?.size, size);
      assert.is(send(port, size), size);
      await port.stop();
    }
    transport.queueSize = 0;
    assert.is(await codeOf(port.start()), ErrorCode.DEVICE_BROKEN);
  }));

test('a control queue of one entry has no place for a command and its ack: the device is broken', async () => {
  for (const ring of ['split', 'packed'] as const) {
    await withPort(
      async (port, transport) => {
        const { available } = port.pool;
        transport.features = transport.features.with(Feature.CTRL_VQ, Feature.RING_PACKED);
        const { queueSizeMax } = transport;
        transport.queueSizeMax = async (index = 0) => (index === 2 ? 1 : await queueSizeMax.call(transport));
        assert.is(await codeOf(port.start()), ErrorCode.DEVICE_BROKEN);
        assert.is(port.state, 'stopped');
        assert.is(port.pool.available, available);
        assert.is(transport.sharedRanges, 0);
        transport.queueSizeMax = async (index = 0) => (index === 2 ? 2 : await queueSizeMax.call(transport));
        await port.start();
      },
      { ring },
    );
  }
});

test('abuse-D19, spec-D37: packets are as long as the MTU allows; one below 68 counts for nothing', () =>
  withPort(async (port, transport) => {
    transport.features = transport.features.with(Feature.MTU);
    for (const [mtu, longest] of [
      [1500, 1518],
      [9000, 9018],
      [68, 86],
      [67, 65_562],
      [0, 65_562],
    ] as const) {
      virtioNetConfig.write(new DataView(transport.config.buffer), { mtu });
      await port.start();
      assert.is(port.maxFrameBytes, longest, `mtu ${mtu}`);
      await port.stop();
    }
  }));

test('spec-D37: an MTU of the application: no more than the device has, and only while the port is stopped', () =>
  withPort(
    async (port, transport) => {
      transport.features = transport.features.with(Feature.MTU);
      await port.start();
      assert.equal([port.mtu, port.maxFrameBytes], [1000, 1018]);
      assert.is(await codeOf(port.setMtu(900)), ErrorCode.WRONG_STATE);
      await port.stop();
      for (const mtu of [67, 1501, 65_536, 100.5])
        assert.is(await codeOf(port.setMtu(mtu)), ErrorCode.INVALID_ARGUMENT);
      for (const mtu of [68, 1500]) {
        await port.setMtu(mtu);
        await port.start();
        assert.equal([port.mtu, port.maxFrameBytes], [mtu, mtu + 18]);
        await port.stop();
      }
      // A device that has a smaller one now.
      virtioNetConfig.write(new DataView(transport.config.buffer), { mtu: 1400 });
      assert.is(await codeOf(port.start()), ErrorCode.INVALID_ARGUMENT);
      assert.throws(() => new Port(transport, { mtu: 67 }), /from 68 to 65535/);
    },
    { mtu: 1000 },
  ));

test('spec-D38: speed and duplex of the link, and values that are none; read again when the configuration changes', () =>
  withPort(async (port, transport) => {
    const view = new DataView(transport.config.buffer);
    transport.features = transport.features.with(Feature.SPEED_DUPLEX);
    assert.equal(port.link, { up: false, speed: undefined, duplex: undefined });
    virtioNetConfig.write(view, { speed: 25_000, duplex: 1 });
    await port.start();
    assert.equal(port.link, { up: true, speed: 25_000, duplex: 'full' });
    for (const [speed, duplex, told] of [
      [0, 0, { speed: 0, duplex: 'half' }],
      [0x7fff_ffff, 1, { speed: 0x7fff_ffff, duplex: 'full' }],
      [0x8000_0000, 2, { speed: undefined, duplex: undefined }],
      [0xffff_ffff, 0xff, { speed: undefined, duplex: undefined }],
    ] as const) {
      virtioNetConfig.write(view, { speed, duplex });
      transport.onEvent?.({ type: 'config' });
      const deadline = Date.now() + 20_000;
      while (port.link.speed !== told.speed || port.link.duplex !== told.duplex) {
        assert.ok(Date.now() < deadline, JSON.stringify(port.link));
        await new Promise((resolve) => setTimeout(resolve, 2));
      }
    }
    await port.stop();
    assert.equal(port.link, { up: false, speed: undefined, duplex: undefined });
  }));

test('virtio 1.2 §5.1.2: with RSS and without MQ the control queue is behind the last pair that the device has', () =>
  withPort(
    async (port, transport) => {
      transport.features = transport.features.with(Feature.CTRL_VQ, Feature.RSS);
      await port.start();
      assert.equal([...transport.queues.keys()], [0, 1, 8]);
    },
    { demand: [Feature.RSS] },
  ));

test('two ports share a pool, and neither takes it down', async () => {
  const transports = [new ScriptedTransport(), new ScriptedTransport()] as const;
  const first = new Port(transports[0], { ringSize: 64, pages: '4K' });
  const second = new Port(transports[1], { ringSize: 64, pages: '4K', pool: first.pool });
  const { available } = first.pool;
  await first.start();
  await second.start();
  second.rxQueue(0);
  assert.is(send(second, 4), 4);
  await second.close();
  assert.is(first.pool.available, available);
  assert.is(send(first, 4), 4);
  await first.close();
});

test('a pool that is not at physical addresses is refused where the device takes those', async () => {
  const before = resources();
  const pool = createPool({ size: 256, pages: '4K' });
  const transport = new ScriptedTransport();
  try {
    new Port(transport, { ringSize: 64, pool, physical: true });
    assert.unreachable('the device would be given addresses that are others’');
  } catch (error) {
    assert.instance(error, VirtioError);
    const { code, advice } = error as VirtioError;
    assert.is(code, ErrorCode.INVALID_ARGUMENT);
    assert.match(advice ?? '', /createPool\(\{ …, physical: true \}\), or open this port first/);
  }
  assert.is(pool.memory.handle.isPhysical, false);
  // Any pool serves a device whose addresses are the driver's to choose.
  await new Port(transport, { ringSize: 64, pages: '4K', pool }).close();
  pool.memory.close();
  assert.is(resources(), before);
});

const peerGone = (): never => {
  throw new VirtioError(ErrorCode.PEER_GONE, 'it went away again');
};

test('a device that goes away while it is brought up again: the port waits for its next coming', () =>
  withPort(
    async (port, transport) => {
      const { available } = port.pool;
      const faults: VirtioError[] = [];
      port.on('fault', (error) => faults.push(error));
      await port.start();
      send(port, 4);
      transport.onEvent?.({ type: 'gone', reason: 'restarted' });
      for (const call of ['reset', 'accept', 'setUpQueue', 'readConfig'] as const) {
        const tried = new Promise<void>((resolve) =>
          transport.hooks.set(call, () => {
            resolve();
            peerGone();
          }),
        );
        transport.onEvent?.({ type: 'back' });
        await tried;
        transport.hooks.clear();
        // In turn: the attempt is over when this is refused.
        assert.is(await codeOf(port.start().then(() => port.stop())), 'none');
        assert.equal(faults, []);
        await port.start();
        transport.onEvent?.({ type: 'gone', reason: 'restarted' });
      }
      transport.hooks.set('accept', peerGone);
      transport.onEvent?.({ type: 'back' });
      await untilState(port, 'disconnected');
      await new Promise((resolve) => setTimeout(resolve, 50));
      assert.is(port.state, 'disconnected');
      assert.is(port.pool.available, available);
      assert.is(transport.sharedRanges, 0);
      transport.hooks.clear();
      transport.onEvent?.({ type: 'back' });
      await untilState(port, 'started');
      assert.is(send(port, 4), 4);
      assert.equal(faults, []);
    },
    { reconnect: true },
  ));

test('a device that goes away while it is reset because it asked for it: the same', () =>
  withPort(
    async (port, transport) => {
      const told: string[] = [];
      for (const name of ['fault', 'recovered'] as const) port.on(name, () => told.push(name));
      await port.start();
      for (const call of ['reset', 'setUpQueue'] as const) {
        transport.hooks.set(call, peerGone);
        transport.onEvent?.({ type: 'needs-reset' });
        await untilState(port, 'disconnected');
        assert.is(transport.sharedRanges, 0);
        transport.hooks.clear();
        transport.onEvent?.({ type: 'back' });
        await untilState(port, 'started');
      }
      assert.equal(told, []);
      assert.is(send(port, 4), 4);
    },
    { reconnect: true, recover: true },
  ));

async function untilState(port: Port, state: Port['state']): Promise<void> {
  const deadline = Date.now() + 30_000;
  while (port.state !== state) {
    assert.ok(Date.now() < deadline, `the port is ${port.state}, not ${state}`);
    await new Promise((resolve) => setTimeout(resolve, 2));
  }
}

test('a thread that does not take the start up: the device is let go of, and the port stopped', () =>
  withPort(async (port, transport) => {
    const { available } = port.pool;
    port.rxQueue(0);
    const steps: string[] = [];
    const step = (name: string) => async () => void steps.push(name);
    const remove = port.addRemote({
      quiesce: step('quiesce'),
      release: step('release'),
      leave: step('leave'),
      stopQueue: step('stop a queue'),
      reclaimQueue: step('reclaim a queue'),
      startQueue: step('start a queue'),
      resume: async () => {
        throw new VirtioError(ErrorCode.TIMEOUT, 'a thread hangs');
      },
    });
    assert.is(await codeOf(port.start()), ErrorCode.TIMEOUT);
    assert.is(port.state, 'stopped');
    assert.is(await transport.status(), 0, 'the device is reset');
    assert.is(transport.sharedRanges, 0);
    assert.equal(steps, ['quiesce', 'release']);
    assert.is(port.pool.available, available);
    remove();
    await port.start();
    assert.is(send(port, 4), 4);
  }));

test('a first look at the configuration that fails leaves the device watched', () =>
  withPort(async (port, transport) => {
    let looks = 0;
    Object.assign(transport, { checkEvents: () => looks++ });
    const { setStatus } = transport;
    transport.setStatus = async (status) => {
      await setStatus.call(transport, status);
      if ((status & Status.DRIVER_OK) === 0) return;
      transport.hooks.set('readConfig', () => {
        throw new VirtioError(ErrorCode.IO, 'not now');
      });
    };
    await port.start();
    assert.is(port.state, 'started');
    const deadline = Date.now() + 30_000;
    while (looks === 0 && Date.now() < deadline) await new Promise((resolve) => setTimeout(resolve, 20));
    assert.ok(looks > 0, 'it is looked at');
    transport.hooks.clear();
  }));

test('a listener that throws is nobody’s clean-up', async () => {
  const thrown: unknown[] = [];
  const catchOne = (error: unknown): void => void thrown.push(error);
  const others = process.listeners('uncaughtException');
  process.removeAllListeners('uncaughtException');
  process.on('uncaughtException', catchOne);
  try {
    await withPort(
      async (port, transport) => {
        const { available } = port.pool;
        const told: string[] = [];
        for (const name of ['link', 'needs-reset', 'recovered', 'fault'] as const) {
          port.on(name, () => {
            told.push(name);
            throw new Error(`a listener of ${name}`);
          });
        }
        await port.start();
        transport.onEvent?.({ type: 'needs-reset' });
        const deadline = Date.now() + 30_000;
        while (!told.includes('recovered') && Date.now() < deadline)
          await new Promise((resolve) => setTimeout(resolve, 2));
        assert.is(port.state, 'started');
        await port.stop();
        assert.is(transport.sharedRanges, 0);
        await port.start();
        send(port, 2);
        transport.onEvent?.({ type: 'gone', reason: 'unplugged' });
        await untilState(port, 'failed');
        await port.stop();
        assert.is(transport.sharedRanges, 0);
        assert.is(port.pool.available, available);
        assert.equal([...new Set(told)].sort(), ['fault', 'link', 'needs-reset', 'recovered']);
        await new Promise((resolve) => setImmediate(resolve));
        assert.is(thrown.length, told.length, 'each is an exception that nobody caught');
      },
      { recover: true },
    );
  } finally {
    process.off('uncaughtException', catchOne);
    for (const listener of others) process.on('uncaughtException', listener);
  }
});

test('what cannot be taken from the device keeps nothing else with it', () =>
  withPort(async (port, transport) => {
    await port.start();
    assert.ok(transport.sharedRanges > 1);
    let isFirst = true;
    transport.hooks.set('unshareMemory', () => {
      if (!isFirst) return;
      isFirst = false;
      throw new VirtioError(ErrorCode.IO, 'not this one');
    });
    assert.is(await codeOf(port.stop()), ErrorCode.IO);
    assert.is(transport.sharedRanges, 1);
  }));

test.run();
