/** The addon's copy engine as JavaScript sees it; the core has its own tests in native/test. */

import { closeSync, mkdtempSync, openSync, readFileSync, rmSync, writeSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { CopyDirection, type CopyEngine, CopyJob, CopyStatus, native } from '../../native/index.js';

const PAGE = 4096;
const BASE = 0x1_0000_0000n;

interface Context {
  memory: number;
  guest: Uint8Array;
  pool: Uint8Array;
  engine: CopyEngine;
  /** Runs one job and returns its status. */
  run: (address: bigint, poolOffset: number, length: number, direction: CopyDirection) => number;
}

const test = suite<Context>('native copy engine');

test.before.each((context) => {
  context.memory = native.createMemory('guest', 4 * PAGE, 0);
  context.guest = new Uint8Array(native.mapShared(context.memory, 0, 4 * PAGE, 0));
  const poolMemory = native.createMemory('pool', 4 * PAGE, 0);
  context.pool = new Uint8Array(native.mapShared(poolMemory, 0, 4 * PAGE, 0));
  native.closeFd(poolMemory);
  for (let i = 0; i < context.guest.length; i++) context.guest[i] = i % 251;
  context.engine = new native.CopyEngine(8);
  context.engine.setPool(context.pool.buffer as ArrayBuffer);
  context.run = (address, poolOffset, length, direction) => {
    const { jobs } = context.engine;
    jobs.set([Number(address & 0xffff_ffffn), Number(address >> 32n), poolOffset, length, direction, 99, 0, 0]);
    const failed = context.engine.run(1);
    const status = jobs[CopyJob.STATUS] ?? -1;
    assert.is(failed, status === CopyStatus.OK ? 0 : 1);
    return status;
  };
});

test.after.each(({ engine, memory, guest, pool }) => {
  engine.close();
  native.unmapShared(guest.buffer as ArrayBuffer);
  native.unmapShared(pool.buffer as ArrayBuffer);
  native.closeFd(memory);
});

const { FROM_GUEST, TO_GUEST } = CopyDirection;

test('copies both ways, over the edge of two regions too', ({ engine, memory, guest, pool, run }) => {
  // The second page of the file comes first in the guest.
  engine.addRegion({ fd: memory, fileOffset: PAGE, guestAddress: BASE, bytes: PAGE });
  engine.addRegion({ fd: memory, fileOffset: 0, guestAddress: BASE + 4096n, bytes: PAGE });
  assert.is(run(BASE + 4000n, 10, 200, FROM_GUEST), CopyStatus.OK);
  assert.equal(pool.subarray(10, 106), guest.subarray(PAGE + 4000, PAGE + 4096));
  assert.equal(pool.subarray(106, 210), guest.subarray(0, 104));
  assert.is(pool[210], 0);
  pool.fill(9, 0, 50);
  assert.is(run(BASE + 4096n, 0, 50, TO_GUEST), CopyStatus.OK);
  assert.equal(guest.subarray(0, 50), pool.subarray(0, 50));
  assert.is(guest[50], 50);
});

test('a region may begin anywhere in its file', ({ engine, memory, guest, pool, run }) => {
  engine.addRegion({ fd: memory, fileOffset: 5000, guestAddress: 0n, bytes: 100 });
  assert.is(run(0n, 0, 100, FROM_GUEST), CopyStatus.OK);
  assert.equal(pool.subarray(0, 100), guest.subarray(5000, 5100));
  assert.is(run(1n, 0, 100, FROM_GUEST), CopyStatus.OUTSIDE_MEMORY);
});

test('statuses tell why, and a bad job leaves everything as it was', ({ engine, memory, guest, pool, run }) => {
  engine.addRegion({ fd: memory, fileOffset: 0, guestAddress: BASE, bytes: PAGE });
  engine.addRegion({ fd: memory, fileOffset: PAGE, guestAddress: BASE + 4096n, bytes: PAGE, readOnly: true });
  const before = [guest.slice(), pool.slice()];
  assert.is(run(BASE - 1n, 0, 2, FROM_GUEST), CopyStatus.OUTSIDE_MEMORY);
  assert.is(run(BASE + 8191n, 0, 2, FROM_GUEST), CopyStatus.OUTSIDE_MEMORY);
  assert.is(run(0xffff_ffff_ffff_ffffn, 0, 2, FROM_GUEST), CopyStatus.OUTSIDE_MEMORY);
  assert.is(run(BASE, 0, 0xffff_ffff, FROM_GUEST), CopyStatus.OUTSIDE_MEMORY);
  assert.is(run(BASE, 4 * PAGE, 1, FROM_GUEST), CopyStatus.OUTSIDE_POOL);
  assert.is(run(BASE, 0xffff_ffff, 1, FROM_GUEST), CopyStatus.OUTSIDE_POOL);
  assert.is(run(BASE + 4096n, 0, 1, TO_GUEST), CopyStatus.READ_ONLY);
  assert.is(run(BASE + 4095n, 0, 2, TO_GUEST), CopyStatus.READ_ONLY);
  assert.is(run(BASE, 0, 10, 7 as CopyDirection), CopyStatus.OUTSIDE_POOL);
  assert.is(run(BASE, 0, 0, FROM_GUEST), CopyStatus.OK);
  assert.is(run(BASE - 1n, 0, 0, FROM_GUEST), CopyStatus.OUTSIDE_MEMORY);
  assert.equal([guest, pool], before);
});

test('regions that overlap, overflow or are not there in the file are refused', ({ engine, memory, run }) => {
  const add = (guestAddress: bigint, bytes: number, fileOffset = 0): number =>
    engine.addRegion({ fd: memory, fileOffset, guestAddress, bytes });
  add(BASE, 2 * PAGE);
  assert.throws(() => add(BASE + 1n, 1), RangeError);
  assert.throws(() => add(BASE - 1n, 2), RangeError);
  assert.throws(() => add(BASE - 4096n, 4 * PAGE), RangeError);
  assert.throws(() => add(BASE + 8191n, PAGE), RangeError);
  assert.throws(() => add(0xffff_ffff_ffff_f001n, PAGE), RangeError);
  assert.throws(() => add(0n, 0), RangeError);
  assert.throws(() => add(0n, 4 * PAGE + 1), RangeError);
  assert.throws(() => add(0n, 1, 4 * PAGE), RangeError);
  assert.throws(() => add(0n, Number.MAX_SAFE_INTEGER, Number.MAX_SAFE_INTEGER), RangeError);
  add(0xffff_ffff_ffff_f000n, PAGE);
  assert.is(run(0xffff_ffff_ffff_ffffn, 0, 1, FROM_GUEST), CopyStatus.OK);
  const event = native.createEventFd(0);
  assert.throws(() => engine.addRegion({ fd: event, fileOffset: 0, guestAddress: 0n, bytes: 1 }), /ENODEV/);
  native.closeFd(event);
});

test('views are the memory itself, the same one again, inside one region', ({ engine, memory, guest }) => {
  const region = engine.addRegion({ fd: memory, fileOffset: 0, guestAddress: BASE, bytes: PAGE });
  engine.addRegion({ fd: memory, fileOffset: PAGE, guestAddress: BASE + 4096n, bytes: PAGE });
  const view = engine.view(BASE + 2n, 8);
  const words = new Uint16Array(view);
  Atomics.store(words, 1, 0xabcd);
  assert.is(guest[4], 0xcd);
  assert.is(guest[5], 0xab);
  assert.is(engine.view(BASE + 2n, 8), view);
  assert.throws(() => engine.view(BASE + 4090n, 7), RangeError);
  assert.throws(() => engine.view(BASE - 1n, 2), RangeError);
  assert.throws(() => engine.view(BASE, 0), RangeError);
  assert.throws(() => engine.view(BASE, PAGE + 1), RangeError);
  const other = engine.view(BASE + 4096n, 8);
  engine.removeRegion(region);
  // Blank, and not detached: a detach makes every typed array access of the thread dearer.
  assert.is(view.byteLength, 8);
  assert.is(words[1], 0);
  words[1] = 0x1234;
  assert.is(guest[4], 0xcd, 'a view of a region that is gone reaches the guest no more');
  const otherWords = new Uint16Array(other);
  guest[PAGE] = 7;
  assert.is(otherWords[0]! & 0xff, 7);
  engine.close();
  assert.is(otherWords[0], 0);
});

test('regions that go with their views in use are bounded: beyond, the views are detached', ({ engine, memory }) => {
  const views: ArrayBuffer[] = [];
  for (let round = 0; round < 300; round++) {
    const region = engine.addRegion({ fd: memory, fileOffset: 0, guestAddress: BASE, bytes: PAGE });
    views.push(engine.view(BASE, 8));
    engine.removeRegion(region);
  }
  assert.is(views[0]!.byteLength, 8);
  assert.is(views[299]!.byteLength, 0);
});

test('a region number is never used twice', ({ engine, memory }) => {
  const region = { fd: memory, fileOffset: 0, guestAddress: BASE, bytes: PAGE };
  const first = engine.addRegion(region);
  engine.removeRegion(first);
  assert.throws(() => engine.removeRegion(first), RangeError);
  assert.is.not(engine.addRegion(region), first);
  assert.throws(() => engine.removeRegion(first), RangeError);
});

test('the 509 regions of a memory table', ({ engine, pool, run }) => {
  const memory = native.createMemory('many', 509 * PAGE, 0);
  for (let i = 508; i >= 0; i--) {
    engine.addRegion({ fd: memory, fileOffset: i * PAGE, guestAddress: BASE + BigInt(i) * 8192n, bytes: PAGE });
  }
  pool[0] = 77;
  for (let i = 0; i < 509; i++) assert.is(run(BASE + BigInt(i) * 8192n, 0, 1, TO_GUEST), CopyStatus.OK);
  assert.is(run(BASE + 4096n, 0, 1, TO_GUEST), CopyStatus.OUTSIDE_MEMORY);
  native.closeFd(memory);
});

test('the count is kept to the list, and what lies beyond counts as failed', ({ engine, memory }) => {
  engine.addRegion({ fd: memory, fileOffset: 0, guestAddress: 0n, bytes: PAGE });
  assert.is(engine.jobs.length, 8 * CopyJob.WORDS);
  assert.is(engine.run(8), 0);
  assert.is(engine.run(10), 2);
  assert.is(engine.run(0), 0);
  assert.is(engine.run(-5), 0);
  assert.is(engine.run(Number.NaN), 0);
});

test('a pool that is unmapped or detached under the engine is no crash', ({ engine, memory, run }) => {
  engine.addRegion({ fd: memory, fileOffset: 0, guestAddress: 0n, bytes: PAGE });
  const plain = new ArrayBuffer(64);
  engine.setPool(plain);
  assert.is(run(1n, 0, 64, FROM_GUEST), CopyStatus.OK);
  assert.is(new Uint8Array(plain)[0], 1);
  structuredClone(plain, { transfer: [plain] });
  assert.is(run(0n, 0, 64, FROM_GUEST), CopyStatus.OUTSIDE_POOL);
  const mapped = native.mapShared(memory, PAGE, PAGE, 0);
  engine.setPool(mapped);
  native.unmapShared(mapped);
  run(0n, 0, 64, FROM_GUEST);
  run(0n, 0, 64, TO_GUEST);
});

test('close is idempotent, ends run and the rest, and run outlives the engine', ({ engine, memory, run }) => {
  const options = { fd: memory, fileOffset: 0, guestAddress: 0n, bytes: PAGE };
  engine.addRegion(options);
  assert.is(run(0n, 0, 1, FROM_GUEST), CopyStatus.OK);
  engine.close();
  engine.close();
  assert.is(run(0n, 0, 1, FROM_GUEST), CopyStatus.OUTSIDE_MEMORY);
  assert.throws(() => engine.addRegion(options), /closed/);
  assert.throws(() => engine.removeRegion(0), /closed/);
  assert.throws(() => engine.view(0n, 1), /closed/);
  assert.throws(() => engine.setPool(new ArrayBuffer(1)), /closed/);
  assert.is(engine.faults(), 0);
  const loose = new native.CopyEngine(1).run;
  assert.is(loose(1), 1);
});

test('guest memory stays out of core dumps (N22)', ({ engine, memory }) => {
  engine.addRegion({ fd: memory, fileOffset: 0, guestAddress: 0n, bytes: 4 * PAGE });
  const address = native.addressOf(engine.view(0n, 8)).toString(16).padStart(8, '0');
  const entry = readFileSync('/proc/self/smaps', 'utf8')
    .split(/^(?=[0-9a-f]+-[0-9a-f]+ )/m)
    .find((text) => text.startsWith(address));
  assert.match(entry ?? '', /^VmFlags:.* dd\b/m);
});

test('a region of a file that may only be read', ({ engine, run }) => {
  const folder = mkdtempSync(join(tmpdir(), 'virtio-pmd-'));
  const writer = openSync(join(folder, 'file'), 'w');
  writeSync(writer, Buffer.alloc(PAGE, 6));
  const reader = openSync(join(folder, 'file'), 'r');
  const region = { fd: reader, fileOffset: 0, guestAddress: BASE, bytes: PAGE };
  assert.throws(() => engine.addRegion(region), /EACCES/);
  engine.addRegion({ ...region, readOnly: true });
  assert.is(run(BASE, 0, 10, FROM_GUEST), CopyStatus.OK);
  assert.is(run(BASE, 0, 10, TO_GUEST), CopyStatus.READ_ONLY);
  for (const fd of [writer, reader]) closeSync(fd);
  rmSync(folder, { recursive: true });
});

test.run();
