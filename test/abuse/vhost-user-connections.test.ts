/**
 * Hostile front-ends against the back-end: how many there are and how fast they come and go (abuse B56).
 * What holds after every case is in test/support/vhost-user-abuse.ts.
 */

import { isMainThread } from 'node:worker_threads';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { native } from '../../native/index.js';
import { onThread } from '../support/thread.js';
import { until } from '../support/until.js';
import { endBystanders, ready, running, withBystander } from '../support/vhost-user-abuse.js';
import { countFds, countMappings, Id } from '../support/vhost-user-raw.js';

export const timeBoundSeconds = 300;

const test = suite('abuse: vhost-user connections');
const isFull = process.env['VIRTIO_PMD_FULL'] === '1';
/** Connections that may be taken between two turns of the event loop, once when it wakes and once when it goes on by itself. */
const MOST_A_TURN = 2 * 16;

/** Connects and goes away again, as fast as it can; on a thread of its own. */
export function storm({ path, count }: { readonly path: string; readonly count: number }): number {
  let refused = 0;
  for (let made = 0; made < count; ) {
    try {
      native.closeFd(native.connectUnix(path));
      made++;
    } catch (error) {
      // As many as the kernel keeps are waiting to be taken.
      if ((error as { code?: string }).code !== 'EAGAIN') throw error;
      refused++;
    }
  }
  return refused;
}

test('abuse-B56: a thousand connections that are idle, and go: no descriptor is left, each has a device of its own', () =>
  withBystander(async (bench) => {
    const before = countFds();
    const count = 1000;
    const idle: number[] = [];
    while (idle.length < count) {
      for (let index = 0; index < 50; index++) idle.push(native.connectUnix(bench.path));
      await until(() => bench.server.connections === idle.length + 1, 'all of them to be taken');
    }
    assert.is(new Set(bench.devices).size, count);
    assert.is(countFds(), before + 2 * count);
    for (const fd of idle) native.closeFd(fd);
    await until(() => bench.server.connections === 1, 'the bystander alone');
    await until(() => countFds() <= before, 'descriptors');
  }));

test('abuse-B56: connections that come and go as fast as they can, beside one that stays: every turn takes a few', () =>
  withBystander(async (bench) => {
    const stays = await bench.hostile(running);
    const device = bench.devices.at(-1)!;
    const [fds, first] = [countFds(), bench.newest()];
    let turn = 0;
    let most = 0;
    let [seen, isOver] = [first, false];
    // Counts in every turn: how long one takes is the machine's business.
    const count = (): void => {
      turn++;
      most = Math.max(most, bench.newest() - seen);
      seen = bench.newest();
      if (!isOver) setImmediate(count);
    };
    setImmediate(count);
    const rounds = isFull ? 10_000 : 1000;
    await onThread(new URL(import.meta.url), 'storm', { path: bench.path, count: rounds });
    await until(() => bench.newest() - first === rounds, 'all of them to be taken');
    await until(() => bench.server.connections === 2, 'those that stay');
    isOver = true;
    assert.ok(most <= MOST_A_TURN, `${most} connections were taken in one turn of the event loop, of ${turn}`);
    assert.equal([...device.running.keys()], [0, 1]);
    await stays.stopRing(0);
    await until(() => countFds() <= fds, 'descriptors');
  }));

test('abuse-B56: more connections than are allowed: refused at once, the others do not notice; one that goes makes room', () =>
  withBystander(
    async (bench) => {
      const [first, second] = [await bench.hostile(running), await bench.hostile(ready)];
      const before = countFds();
      await onThread(new URL(import.meta.url), 'storm', { path: bench.path, count: 300 });
      const refused = native.connectUnix(bench.path);
      await until(() => native.receive(refused, new Uint8Array(1))?.bytes === 0, 'it to be closed');
      native.closeFd(refused);
      await until(() => countFds() <= before, 'descriptors');
      const errors = bench.errors().filter((event) => event.connection === undefined);
      assert.ok(errors.length > 0 && errors.every(({ error }) => error.code === 'NO_RESOURCES'));
      for (const frontend of [first, second]) assert.ok((await frontend.askU64(Id.GET_FEATURES)) !== 0n);
      assert.is(bench.devices.length, 2, 'no device is made for what is refused');
      second.close();
      await until(() => bench.server.connections === 2, 'room');
      const third = await bench.hostile(running);
      assert.ok((await third.askU64(Id.GET_FEATURES)) !== 0n);
    },
    { maxConnections: 3 },
  ));

test('abuse-B56: two front-ends on one socket: each has a device of its own, and what one does the other does not see', () =>
  withBystander(async (bench) => {
    const first = await bench.hostile(running);
    const firstDevice = bench.devices.at(-1)!;
    const second = await bench.hostile(running);
    const secondDevice = bench.devices.at(-1)!;
    assert.is.not(firstDevice, secondDevice);
    assert.is.not(firstDevice.regions[0]!.fd, secondDevice.regions[0]!.fd);
    firstDevice.takeCalls();
    for (const index of [0, 1]) await second.stopRing(index);
    second.close();
    await until(() => secondDevice.isClosed, 'the second to be closed');
    assert.equal([firstDevice.takeCalls(), [...firstDevice.running.keys()]], [[], [0, 1]]);
    assert.ok((await first.askU64(Id.GET_FEATURES)) !== 0n);
  }));

test('abuse-B56, rows 22 and 23: connections that end in the middle of everything leave descriptors and mappings where they were', () =>
  withBystander(async (bench) => {
    const once = async (round: number): Promise<void> => {
      const guest = await bench.guest();
      await guest.bringUp();
      guest.post(32);
      // Requests on their way, packets in the rings: and away. Events of the device still come after that.
      if (round % 2 === 0) await guest.send(Id.SET_VRING_NUM, Buffer.alloc(8));
      if (round % 3 === 0) await guest.send(Id.GET_VRING_BASE, Buffer.alloc(8));
      guest.close();
      await until(() => bench.server.connections === 1, 'the bystander alone');
    };
    await once(0);
    const before = [countFds(), countMappings()];
    for (let round = 0; round < (isFull ? 1000 : 40); round++) await once(round);
    await until(() => countFds() <= before[0]!, 'descriptors');
    await until(() => countMappings() <= before[1]!, `mappings to be back to ${before[1]}`);
  }));

test.after(endBystanders);
// This file is loaded by the thread of `storm`, too.
if (isMainThread) test.run();
