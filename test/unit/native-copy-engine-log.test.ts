/** The copy engine's dirty log as JavaScript sees it (vhost-user "Migration"); native/test/dirty_log_test.cc has the core's. */

import { closeSync, ftruncateSync, mkdtempSync, openSync, readSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Worker } from 'node:worker_threads';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { CopyDirection, type CopyEngine, CopyJob, CopyStatus, native } from '../../native/index.js';

const PAGE = 4096;
const PAGES = 24;
/** Not at a page, and not even at an even byte: nothing says that a log begins at one. */
const LOG_OFFSET = 4099;
const LOG_BYTES = 2;
const ADDON = new URL('../../native/index.js', import.meta.url).href;

const { FROM_GUEST, TO_GUEST } = CopyDirection;

interface Context {
  memory: number;
  logMemory: number;
  logFile: Uint8Array;
  engine: CopyEngine;
  /** Runs one job of the pool's first bytes and returns its status. */
  run: (address: bigint, length: number, direction: CopyDirection) => number;
  /** Pages that the log tells, which is blank afterwards; what is beside it must be untouched. */
  takeDirty: () => number[];
}

const test = suite<Context>('native dirty log');

test.before.each((context) => {
  context.memory = native.createMemory('guest', PAGES * PAGE, 0);
  context.logMemory = native.createMemory('log', 3 * PAGE, 0);
  context.logFile = new Uint8Array(native.mapShared(context.logMemory, 0, 3 * PAGE, 0));
  context.engine = new native.CopyEngine(4);
  context.engine.setPool(new ArrayBuffer(PAGES * PAGE));
  context.run = (address, length, direction) => {
    const { jobs } = context.engine;
    jobs.set([Number(address & 0xffff_ffffn), Number(address >> 32n), 0, length, direction, 99, 0, 0]);
    context.engine.run(1);
    return jobs[CopyJob.STATUS] ?? -1;
  };
  context.takeDirty = () => {
    const pages: number[] = [];
    context.logFile.forEach((byte, at) => {
      for (let bit = 0; bit < 8; bit++) if (byte & (1 << bit)) pages.push((at - LOG_OFFSET) * 8 + bit);
    });
    context.logFile.fill(0);
    return pages;
  };
});

test.after.each(({ engine, memory, logMemory, logFile }) => {
  engine.close();
  native.unmapShared(logFile.buffer as ArrayBuffer);
  native.closeFd(memory);
  native.closeFd(logMemory);
});

function setLog({ engine, logMemory }: Context): void {
  engine.setLog({ fd: logMemory, fileOffset: LOG_OFFSET, bytes: LOG_BYTES });
}

test('exactly the pages that jobs wrote are marked (G21), the offset of the log applied once (CVE-2026-86563)', (context) => {
  const { engine, memory, run, takeDirty } = context;
  engine.addRegion({ fd: memory, fileOffset: 0, guestAddress: 0n, bytes: PAGES * PAGE });
  assert.is(run(0n, PAGE, TO_GUEST), CopyStatus.OK);
  assert.equal(takeDirty(), []);
  setLog(context);
  const cases: readonly [bigint, number, number[]][] = [
    [0n, 1, [0]],
    [0n, PAGE, [0]],
    [0n, PAGE + 1, [0, 1]],
    [4095n, 1, [0]],
    [4095n, 2, [0, 1]],
    [4096n, PAGE, [1]],
    [4097n, PAGE, [1, 2]],
    [28672n, 2 * PAGE, [7, 8]],
    [100n, 9 * PAGE, [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]],
    [61440n, PAGE, [15]],
    [61440n, 0, []],
  ];
  for (const [address, length, pages] of cases) {
    assert.is(run(address, length, TO_GUEST), CopyStatus.OK);
    assert.equal(takeDirty(), pages, `${length} bytes at ${address}`);
    assert.is(run(address, length, FROM_GUEST), CopyStatus.OK);
    assert.equal(takeDirty(), [], 'reading dirties nothing');
  }
  assert.is(engine.skippedPages(), 0);
});

test('pages beyond the log are counted, never written (B43)', (context) => {
  const { engine, memory, run, takeDirty } = context;
  engine.addRegion({ fd: memory, fileOffset: 0, guestAddress: 0n, bytes: 20 * PAGE });
  engine.addRegion({ fd: memory, fileOffset: 20 * PAGE, guestAddress: 0xffff_ffff_ffff_f000n, bytes: PAGE });
  setLog(context);
  assert.is(run(61440n, 2 * PAGE, TO_GUEST), CopyStatus.OK);
  assert.equal(takeDirty(), [15]);
  assert.is(engine.skippedPages(), 1);
  assert.is(run(0xffff_ffff_ffff_f000n, PAGE, TO_GUEST), CopyStatus.OK);
  engine.markDirty(0, 1, 10);
  assert.equal(takeDirty(), []);
  assert.is(engine.skippedPages(), 3);
});

test('jobs over several regions mark the guest pages of each; jobs that are refused mark none', (context) => {
  const { engine, memory, run, takeDirty } = context;
  // In the file the other way round than in the guest.
  engine.addRegion({ fd: memory, fileOffset: 2 * PAGE, guestAddress: 0n, bytes: 2 * PAGE });
  engine.addRegion({ fd: memory, fileOffset: 0, guestAddress: 8192n, bytes: 2 * PAGE });
  engine.addRegion({ fd: memory, fileOffset: 4 * PAGE, guestAddress: 16384n, bytes: PAGE, readOnly: true });
  setLog(context);
  assert.is(run(8000n, 400, TO_GUEST), CopyStatus.OK);
  assert.equal(takeDirty(), [1, 2]);
  assert.is(run(16000n, 400 + PAGE, TO_GUEST), CopyStatus.OUTSIDE_MEMORY);
  assert.is(run(16000n, 400, TO_GUEST), CopyStatus.READ_ONLY);
  assert.equal(takeDirty(), []);
});

test('translated jobs mark guest pages, not IOVAs', (context) => {
  const { engine, memory, run, takeDirty } = context;
  engine.addRegion({ fd: memory, fileOffset: 0, guestAddress: 0n, bytes: 16 * PAGE });
  setLog(context);
  engine.setTranslated(true);
  const access = { readable: true, writable: true };
  engine.addWindow({ iova: 0x7_0000_0000n, bytes: 4096n, guestAddress: 5n * 4096n, ...access });
  engine.addWindow({ iova: 0x7_0000_1000n, bytes: 4096n, guestAddress: 2n * 4096n + 100n, ...access });
  assert.is(run(0x7_0000_0010n, 10, TO_GUEST), CopyStatus.OK);
  assert.equal(takeDirty(), [5]);
  assert.is(run(0x7_0000_0ff0n, PAGE, TO_GUEST), CopyStatus.OK);
  assert.equal(takeDirty(), [2, 3, 5]);
  engine.markDirty(4096, 0, 1);
  assert.equal(takeDirty(), [1], 'markDirty counts guest addresses in any case');
});

test('markDirty marks ranges, and takes anything without a word', (context) => {
  const { engine, takeDirty } = context;
  engine.markDirty(0, 0, 100);
  assert.equal(takeDirty(), []);
  setLog(context);
  engine.markDirty(2 * PAGE - 1, 0, 2);
  assert.equal(takeDirty(), [1, 2]);
  engine.markDirty(0, 0, Number.MAX_SAFE_INTEGER);
  assert.is(takeDirty().length, 16);
  const before = engine.skippedPages();
  for (const bytes of [0, -1, Number.NaN, Number.NEGATIVE_INFINITY]) engine.markDirty(0, 0, bytes);
  assert.equal(takeDirty(), []);
  // Words are words: -1 is the highest one.
  engine.markDirty(-1, -1, 50);
  assert.is(engine.skippedPages(), before + 1);
  const loose = engine.markDirty as (...values: unknown[]) => unknown;
  for (const value of [undefined, null, 'x', 5n, {}, Symbol('x')]) {
    loose(value, value, value);
    loose(0, 0, value);
    assert.equal(takeDirty(), []);
  }
  loose();
  engine.clearLog();
  engine.clearLog();
  engine.markDirty(0, 0, 100);
  assert.equal(takeDirty(), []);
});

test('a log that is not there in the file is refused, and the one before stays', (context) => {
  const { engine, logMemory, takeDirty } = context;
  setLog(context);
  const set = (fileOffset: number, bytes: number, fd = logMemory) => engine.setLog({ fd, fileOffset, bytes });
  assert.throws(() => set(0, 0), RangeError);
  assert.throws(() => set(0, 3 * PAGE + 1), RangeError);
  assert.throws(() => set(3 * PAGE, 1), RangeError);
  assert.throws(() => set(Number.MAX_SAFE_INTEGER, Number.MAX_SAFE_INTEGER), RangeError);
  assert.throws(() => set(-1, 1), RangeError);
  assert.throws(() => set(0, 2 ** 53), RangeError);
  assert.throws(() => set(0, 1, 2 ** 30), /EBADF/);
  const event = native.createEventFd(0);
  assert.throws(() => set(0, 1, event), /ENODEV/);
  native.closeFd(event);
  engine.markDirty(0, 0, 1);
  assert.equal(takeDirty(), [0]);
  engine.close();
  engine.markDirty(0, 0, 1);
  assert.equal(takeDirty(), []);
  assert.throws(() => set(0, 1), /closed/);
});

test('a job over pages that are gone marks all of its pages; a log that is gone is counted (B35)', (context) => {
  const { engine, run, takeDirty, logMemory } = context;
  const folder = mkdtempSync(join(tmpdir(), 'virtio-pmd-'));
  const file = openSync(join(folder, 'file'), 'w+');
  try {
    ftruncateSync(file, 4 * PAGE);
    engine.addRegion({ fd: file, fileOffset: 0, guestAddress: 0n, bytes: 4 * PAGE });
    setLog(context);
    ftruncateSync(file, PAGE);
    assert.is(run(10n, 2 * PAGE, TO_GUEST), CopyStatus.FAULT);
    assert.equal(takeDirty(), [0, 1, 2]);
    ftruncateSync(file, PAGE);
    const faults = engine.faults();
    engine.setLog({ fd: file, fileOffset: 0, bytes: PAGE });
    ftruncateSync(file, 0);
    engine.markDirty(0, 0, 4 * PAGE);
    assert.is(engine.faults(), faults + 1);
    engine.setLog({ fd: logMemory, fileOffset: LOG_OFFSET, bytes: LOG_BYTES });
    assert.is(engine.faults(), faults + 1);
    engine.markDirty(0, 0, 1);
    assert.equal(takeDirty(), [0]);
  } finally {
    closeSync(file);
    rmSync(folder, { recursive: true });
  }
});

test('a log may be read by another process while it is written', (context) => {
  const { engine, logMemory } = context;
  setLog(context);
  engine.markDirty(9 * PAGE, 0, 1);
  const bytes = Buffer.alloc(LOG_BYTES);
  readSync(logMemory, bytes, 0, LOG_BYTES, LOG_OFFSET);
  assert.equal([...bytes], [0, 2]);
});

test('two threads that mark in the same bytes lose no bit', async (context) => {
  const { logMemory, takeDirty } = context;
  const rounds = process.env['VIRTIO_PMD_FULL'] === '1' ? 2000 : 100;
  // Each marks every second page, by jobs, and waits for the other after each round.
  const program = `
    const { workerData, parentPort } = require('node:worker_threads');
    import(workerData.addon).then(({ native }) => {
      const { memory, logMemory, which, rounds, turn } = workerData;
      const engine = new native.CopyEngine(8);
      engine.addRegion({ fd: memory, fileOffset: 0, guestAddress: 0n, bytes: ${16 * PAGE} });
      engine.setLog({ fd: logMemory, fileOffset: ${LOG_OFFSET}, bytes: ${LOG_BYTES} });
      engine.setPool(new ArrayBuffer(64));
      const log = new Uint8Array(native.mapShared(logMemory, 0, ${3 * PAGE}, 0));
      const meet = (count) => { Atomics.add(turn, 0, 1); while (Atomics.load(turn, 0) < count) native.yieldThread(); };
      for (let i = 0; i < 8; i++) engine.jobs.set([(2 * i + which) * ${PAGE}, 0, 0, 64, 1, 0, 0, 0], i * 8);
      let lost = 0;
      for (let round = 0; round < rounds; round++) {
        meet(round * 4 + 2);
        if (engine.run(8) !== 0) lost += 1000000;
        meet(round * 4 + 4);
        for (let byte = 0; byte < ${LOG_BYTES}; byte++) {
          const mine = which === 0 ? 0x55 : 0xaa;
          const before = Atomics.and(log, ${LOG_OFFSET} + byte, ~mine & 0xff);
          if ((before & mine) !== mine) lost++;
        }
      }
      engine.run(8);
      engine.close();
      native.unmapShared(log.buffer);
      parentPort.postMessage(lost);
    });`;
  const turn = new Int32Array(new SharedArrayBuffer(4));
  const lost = await Promise.all(
    [0, 1].map((which) => {
      const { memory } = context;
      const workerData = { addon: ADDON, memory, logMemory, which, rounds, turn };
      const worker = new Worker(program, { eval: true, workerData });
      return new Promise((resolve, reject) => worker.once('message', resolve).once('error', reject));
    }),
  );
  assert.equal(lost, [0, 0]);
  assert.is(takeDirty().length, 16);
});

test.run();
