/** A host's port and threads that come and go while a front-end comes. */

import { setImmediate as nextTurn } from 'node:timers/promises';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { HOST_THREAD_BYTES, HostPort, type HostPortThread } from '../../driver/backend/host-port.js';
import { AttachedHostPort } from '../../driver/backend/host-thread.js';
import { createPool } from '../../driver/net/create-pool.js';

const test = suite('host port');

test('a thread that is detached while a front-end comes gets none of its rings afterwards', async () => {
  const pool = createPool({ size: 64, pages: '4K', spareBytes: 2 * HOST_THREAD_BYTES });
  const host = new HostPort({ pool });
  const handlers = new Map<string, (payload: never) => unknown>();
  const attached = new AttachedHostPort({
    pool,
    onRequest: (type: string, handler: (payload: never) => unknown) => void handlers.set(type, handler),
    emit: () => undefined,
  });
  const asked: string[] = [];
  const thread: HostPortThread = {
    lcore: 1,
    request: async <T>(type: string, payload: unknown): Promise<T> => {
      asked.push(type);
      await nextTurn();
      return handlers.get(type)?.(payload as never) as T;
    },
  };
  await host.attach(thread, { rx: [0], tx: [0] });
  const coming = host.createDevice();
  while (!asked.includes('adopt-ring')) await nextTurn();
  await host.detach(thread);
  const before = asked.length;
  const device = await coming;
  assert.equal(asked.slice(before), []);
  await device.close();
  attached.close();
  pool.memory.close();
});

test.run();
