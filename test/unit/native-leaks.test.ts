/** Thousands of rounds of open and close leave the process's descriptors and mappings as they were (abuse cases N1, N3, N18). */

import { mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setImmediate as turn } from 'node:timers/promises';
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import { Worker } from 'node:worker_threads';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { native, PollEvent } from '../../native/index.js';

setFlagsFromString('--expose-gc');
const collectGarbage: () => void = runInNewContext('gc');

const ROUNDS = 10_000;
const PAGE = 4096;

const openFds = (): string[] => readdirSync('/proc/self/fd');
/** Mappings of memfds: ours are the only ones, and named in /proc/self/maps. */
const memoryMappings = (): number =>
  readFileSync('/proc/self/maps', 'utf8')
    .split('\n')
    .filter((line) => /memfd:leak/.test(line)).length;

/** Lets finalizers run. */
async function settle(): Promise<void> {
  for (let i = 0; i < 3; i++) {
    collectGarbage();
    await turn();
  }
}

const test = suite('native leaks');

/** Adds a test after whose `body` the process has the descriptors and mappings it had before. */
function leavesNothing(name: string, body: () => void | Promise<void>): void {
  test(name, async () => {
    await settle();
    const fds = openFds();
    await body();
    await settle();
    assert.equal(openFds(), fds);
    assert.is(memoryMappings(), 0);
  });
}

leavesNothing('memory: map, use, unmap', async () => {
  for (let i = 0; i < ROUNDS; i++) {
    const fd = native.createMemory('leak', PAGE, 0);
    const map = native.mapShared(fd, 0, PAGE, 0);
    new Uint32Array(map)[0] = i;
    native.unmapShared(map);
    native.closeFd(fd);
    if (i % 1000 === 0) await settle();
  }
});

leavesNothing('memory: failed calls', () => {
  const fd = native.createMemory('leak', PAGE, 0);
  for (let i = 0; i < ROUNDS; i++) {
    assert.throws(() => native.mapShared(fd, 1, 100, 0), RangeError);
    assert.throws(() => native.mapShared(fd, 0, 2 * PAGE, 0), RangeError);
  }
  native.closeFd(fd);
});

leavesNothing('copy engines: regions, views and close', async () => {
  const fd = native.createMemory('leak', 4 * PAGE, 0);
  const pool = native.mapShared(fd, 0, PAGE, 0);
  for (let i = 0; i < ROUNDS; i++) {
    const engine = new native.CopyEngine(4);
    engine.setPool(pool);
    const region = engine.addRegion({ fd, fileOffset: PAGE, guestAddress: 0n, bytes: PAGE });
    engine.addRegion({ fd, fileOffset: 2 * PAGE, guestAddress: 4096n, bytes: PAGE });
    const view = new Uint16Array(engine.view(16n, 32));
    view[0] = i;
    engine.view(4096n, 64);
    if (i % 2 === 0) engine.removeRegion(region);
    engine.close();
    assert.is(view[0] ?? 0, 0, 'blank or detached');
    if (i % 1000 === 0) await settle();
  }
  native.unmapShared(pool);
  native.closeFd(fd);
});

leavesNothing('copy engines: left to the collector, with views that outlive them', async () => {
  const fd = native.createMemory('leak', PAGE, 0);
  const kept: Uint32Array[] = [];
  for (let i = 0; i < 50; i++) {
    const engine = new native.CopyEngine(4);
    engine.addRegion({ fd, fileOffset: 0, guestAddress: 0n, bytes: PAGE });
    kept.push(new Uint32Array(engine.view(0n, 64)));
  }
  await settle();
  for (const view of kept) view[3] = 7;
  assert.is(kept[49]?.[3], 7);
  kept.length = 0;
  native.closeFd(fd);
});

leavesNothing('views: many of one region, dropped', async () => {
  const fd = native.createMemory('leak', 64 * PAGE, 0);
  const engine = new native.CopyEngine(1);
  engine.addRegion({ fd, fileOffset: 0, guestAddress: 0n, bytes: 64 * PAGE });
  for (let i = 0; i < ROUNDS; i++) assert.is(engine.view(BigInt(i * 16), 16).byteLength, 16);
  await settle();
  const last = engine.view(0n, 16);
  engine.close();
  assert.is(new Uint8Array(last)[0] ?? 0, 0, 'blank or detached');
  native.closeFd(fd);
});

leavesNothing('sockets with descriptors, eventfds and polls', async () => {
  const folder = mkdtempSync(join(tmpdir(), 'virtio-pmd-'));
  for (let i = 0; i < ROUNDS / 10; i++) {
    const path = join(folder, `socket${i}`);
    const listener = native.listenUnix(path, 1);
    assert.throws(() => native.listenUnix(path, 1), /EADDRINUSE/);
    assert.throws(() => native.connectUnix(`${path}-`), /ENOENT/);
    const client = native.connectUnix(path);
    const server = native.acceptUnix(listener);
    const event = native.createEventFd(1);
    native.send(client, new Uint8Array(3), [event, client, listener]);
    const poll = native.pollFd(server, PollEvent.READABLE, () => {});
    poll.close();
    const received = native.receive(server, new Uint8Array(8));
    assert.is(received?.fds.length, 3);
    for (const fd of [...(received?.fds ?? []), client, server, event, listener]) native.closeFd(fd);
    if (i % 100 === 0) await turn();
  }
  rmSync(folder, { recursive: true });
});

leavesNothing('threads that end with their mappings open', async () => {
  const fd = native.createMemory('leak', 16 * PAGE, 0);
  const program = `
    const { workerData } = require('node:worker_threads');
    import(workerData.addon).then(({ native }) => {
      const map = native.mapShared(workerData.fd, 0, ${PAGE}, 0);
      const engine = new native.CopyEngine(4);
      engine.addRegion({ fd: workerData.fd, fileOffset: ${PAGE}, guestAddress: 0n, bytes: ${PAGE} });
      engine.setPool(map);
      globalThis.kept = [map, engine, engine.view(0n, 64)];
      if (workerData.stop) process.exit(0);
    });`;
  const addon = new URL('../../native/index.js', import.meta.url).href;
  for (let i = 0; i < 10; i++) {
    const worker = new Worker(program, { eval: true, workerData: { addon, fd, stop: i % 2 === 0 } });
    await new Promise((resolve, reject) => worker.once('exit', resolve).once('error', reject));
  }
  native.closeFd(fd);
});

test.run();
