/** Files that are truncated under their mappings (abuse cases B35, N6): zeroes and a count, never the end of the process. */

import { closeSync, ftruncateSync, mkdtempSync, openSync, rmSync, writeSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Worker } from 'node:worker_threads';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { CopyDirection, CopyJob, CopyStatus, native } from '../../native/index.js';

const PAGE = 4096;
const PAGES = 16;

const test = suite<{ folder: string; file: number }>('native truncated files');

test.before.each((context) => {
  context.folder = mkdtempSync(join(tmpdir(), 'virtio-pmd-'));
  context.file = openSync(join(context.folder, 'file'), 'w+');
  writeSync(context.file, Buffer.alloc(PAGES * PAGE, 5));
});

test.after.each((context) => {
  closeSync(context.file);
  rmSync(context.folder, { recursive: true });
});

test('a job over a page that is gone ends as FAULT, its neighbours as OK', ({ file }) => {
  const engine = new native.CopyEngine(4);
  engine.addRegion({ fd: file, fileOffset: 0, guestAddress: 0n, bytes: PAGES * PAGE });
  const pool = new ArrayBuffer(4 * 2048);
  engine.setPool(pool);
  new Uint8Array(pool).fill(1);
  ftruncateSync(file, PAGE);
  const addresses = [0, 8 * PAGE, 8 * PAGE + 100, 12 * PAGE];
  addresses.forEach((address, i) => {
    const direction = i === 3 ? CopyDirection.TO_GUEST : CopyDirection.FROM_GUEST;
    engine.jobs.set([address, 0, i * 2048, 76, direction, 99, 0, 0], i * CopyJob.WORDS);
  });
  assert.is(engine.run(4), 2);
  const statuses = addresses.map((_, i) => engine.jobs[i * CopyJob.WORDS + CopyJob.STATUS]);
  assert.equal(statuses, [CopyStatus.OK, CopyStatus.FAULT, CopyStatus.OK, CopyStatus.FAULT]);
  assert.is(new Uint8Array(pool)[0], 5);
  assert.is(new Uint8Array(pool)[2048], 0);
  assert.is(engine.faults(), 2);
  engine.close();
  assert.is(engine.faults(), 2);
});

test('compiled code that reads and writes a view goes on over zeroes', ({ file }) => {
  const engine = new native.CopyEngine(1);
  engine.addRegion({ fd: file, fileOffset: 0, guestAddress: 0n, bytes: PAGES * PAGE });
  const words = new Uint16Array(engine.view(0n, PAGES * PAGE));
  const sum = (): number => {
    let total = 0;
    for (let i = 0; i < words.length; i++) total += words[i] ?? 0;
    return total;
  };
  // Until the loop is compiled.
  for (let i = 0; i < 50; i++) assert.is(sum(), 0x0505 * words.length);
  ftruncateSync(file, 2 * PAGE);
  assert.is(sum(), 0x0505 * PAGE);
  assert.is(engine.faults(), PAGES - 2);
  assert.is(Atomics.add(words, 3 * PAGE, 4), 0);
  assert.is(Atomics.load(words, 3 * PAGE), 4);
  engine.close();
});

test('a mapping of mapShared is guarded alike', ({ file }) => {
  const map = native.mapShared(file, 0, PAGES * PAGE, 0);
  ftruncateSync(file, 0);
  new Uint8Array(map)[5 * PAGE] = 1;
  assert.is(new Uint8Array(map)[5 * PAGE], 1);
  assert.is(native.read32(map, 9 * PAGE), 0);
  native.unmapShared(map);
});

test('several threads fault on the same file at once', async ({ file }) => {
  const program = `
    const { workerData, parentPort } = require('node:worker_threads');
    import(workerData.addon).then(({ native }) => {
      const map = native.mapShared(workerData.file, 0, ${PAGES * PAGE}, 1);
      parentPort.once('message', () => {
        let sum = 0;
        for (const byte of new Uint8Array(map)) sum += byte;
        native.unmapShared(map);
        parentPort.postMessage(sum);
      });
      parentPort.postMessage('mapped');
    });`;
  const addon = new URL('../../native/index.js', import.meta.url).href;
  const workers = Array.from({ length: 4 }, () => new Worker(program, { eval: true, workerData: { addon, file } }));
  const next = (worker: Worker): Promise<unknown> =>
    new Promise((resolve, reject) => worker.once('message', resolve).once('error', reject));
  await Promise.all(workers.map(next));
  ftruncateSync(file, PAGE);
  const sums = workers.map(next);
  for (const worker of workers) worker.postMessage('go');
  assert.equal(await Promise.all(sums), Array(4).fill(5 * PAGE));
  await Promise.all(workers.map((worker) => worker.terminate()));
});

test.run();
