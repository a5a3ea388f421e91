/** A host's port: threads that come and go while a front-end comes, and what becomes of the device. */

import { setImmediate as nextTurn } from 'node:timers/promises';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { HOST_THREAD_BYTES, HostPort, type HostPortThread } from '../../driver/backend/host-port.js';
import { AttachedHostPort } from '../../driver/backend/host-thread.js';
import { NetDevice } from '../../driver/backend/net-device.js';
import { createPool } from '../../driver/net/create-pool.js';
import { Feature, FeatureSet } from '../../driver/spec/features.js';
import { NetStatus, virtioNetConfig } from '../../driver/spec/net-config.js';

const test = suite('host port');

interface World {
  readonly host: HostPort;
  /** A thread that is this one, and what it was asked. */
  readonly thread: HostPortThread;
  readonly asked: string[];
  /** From now on it answers nothing. */
  end(): void;
}

/** @param refuse what the thread rejects, by the type of the request */
async function withHost(run: (world: World) => Promise<void>, refuse = ''): Promise<void> {
  const pool = createPool({ size: 64, pages: '4K', spareBytes: 2 * HOST_THREAD_BYTES });
  const handlers = new Map<string, (payload: never) => unknown>();
  const attached = new AttachedHostPort({
    pool,
    onRequest: (type: string, handler: (payload: never) => unknown) => void handlers.set(type, handler),
    emit: () => undefined,
  });
  const asked: string[] = [];
  let hasEnded = false;
  const thread: HostPortThread = {
    lcore: 1,
    request: async <T>(type: string, payload: unknown): Promise<T> => {
      asked.push(type);
      await nextTurn();
      if (hasEnded) throw new Error('the thread has ended');
      if (type === refuse) throw new Error(`no ${type} here`);
      return handlers.get(type)?.(payload as never) as T;
    },
  };
  try {
    const end = () => {
      hasEnded = true;
    };
    await run({ host: new HostPort({ pool }), thread, asked, end });
  } finally {
    attached.close();
    pool.memory.close();
  }
}

test('a thread that is detached while a front-end comes gets none of its rings afterwards', async () => {
  await withHost(async ({ host, thread, asked }) => {
    await host.attach(thread, { rx: [0], tx: [0] });
    const coming = host.createDevice();
    while (!asked.includes('adopt-ring')) await nextTurn();
    await host.detach(thread);
    const before = asked.length;
    const device = await coming;
    assert.equal(asked.slice(before), []);
    await device.close();
  });
});

test('a device whose rings a thread does not take is taken off it again', async () => {
  await withHost(async ({ host, thread, asked }) => {
    await host.attach(thread, { rx: [0], tx: [0] });
    await host.createDevice().then(
      () => assert.unreachable(),
      (error: Error) => assert.is(error.message, 'no adopt-ring here'),
    );
    assert.is(asked.at(-1), 'remove-device');
    // The next front-end finds a host that works.
    await host.detach(thread);
    await (await host.createDevice()).close();
  }, 'adopt-ring');
});

test('a device goes on without a thread that has ended, and serves another one', async () => {
  await withHost(async ({ host, thread, asked, end }) => {
    await host.attach(thread, { rx: [0], tx: [0] });
    const device = await host.createDevice();
    end();
    await host.detach(thread).then(
      () => assert.unreachable(),
      (error: Error) => assert.is(error.message, 'the thread has ended'),
    );
    const before = asked.length;
    await device.setMemory([]);
    assert.equal(asked.slice(before), [], 'it is not asked any more');
    await device.close();
  });
});

test('a front-end that leaves while a thread comes takes nothing from it', async () => {
  await withHost(async ({ host, thread, asked }) => {
    const first = await host.createDevice();
    const coming = host.attach(thread, { rx: [0], tx: [0] });
    while (!asked.includes('adopt-ring')) await nextTurn();
    await first.close();
    await coming;
    const before = asked.length;
    await (await host.createDevice()).close();
    assert.ok(asked.slice(before).includes('adopt-ring'), 'the next front-end finds the thread');
  });
});

test('what the device has been told stays when a thread leaves it', async () => {
  await withHost(async ({ host, thread }) => {
    await host.attach(thread, { rx: [0], tx: [0] });
    const device = await host.createDevice();
    assert.instance(device, NetDevice);
    if (!(device instanceof NetDevice)) return;
    const features = [Feature.VERSION_1, Feature.STATUS, Feature.CTRL_VQ, Feature.GUEST_ANNOUNCE];
    await device.setFeatures(FeatureSet.of(...features));
    const at = virtioNetConfig.fields.status.offset;
    assert.ok(device.announce());
    await host.detach(thread);
    assert.is(device.config[at]! & NetStatus.ANNOUNCE, NetStatus.ANNOUNCE, 'after one has left');
    await host.attach(thread, { rx: [0], tx: [0] });
    assert.is(device.config[at]! & NetStatus.ANNOUNCE, NetStatus.ANNOUNCE, 'after one has come');
    await device.close();
  });
});

test.run();
