/** Register accessors, and the thread calls. */

import { Worker } from 'node:worker_threads';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { MapFlag, native } from '../../native/index.js';

const test = suite<{ map: ArrayBuffer; memory: number }>('native registers and threads');

test.before.each((context) => {
  context.memory = native.createMemory('registers', 4096, 0);
  context.map = native.mapShared(context.memory, 0, 4096, 0);
});

test.after.each((context) => {
  native.unmapShared(context.map);
  native.closeFd(context.memory);
});

test('each width writes its bytes only, little-endian', ({ map }) => {
  const bytes = new Uint8Array(map);
  bytes.fill(0xee);
  native.write8(map, 0, 0x11);
  native.write16(map, 2, 0x2233);
  native.write32(map, 4, 0xfedcba98);
  assert.equal([...bytes.subarray(0, 10)], [0x11, 0xee, 0x33, 0x22, 0x98, 0xba, 0xdc, 0xfe, 0xee, 0xee]);
  assert.is(native.read8(map, 0), 0x11);
  assert.is(native.read16(map, 2), 0x2233);
  assert.is(native.read32(map, 4), 0xfedcba98);
});

test('the last register is reached, the one after it and a crooked one are not', ({ map }) => {
  native.write8(map, 4095, 1);
  native.write16(map, 4094, 1);
  native.write32(map, 4092, 1);
  for (const offset of [4096, 4097, 2 ** 32, Number.MAX_SAFE_INTEGER, -1, 0.5, Number.NaN]) {
    assert.throws(() => native.read8(map, offset), RangeError);
    assert.throws(() => native.write8(map, offset, 0), RangeError);
  }
  assert.throws(() => native.read16(map, 1), RangeError);
  assert.throws(() => native.read16(map, 4095), RangeError);
  assert.throws(() => native.read32(map, 2), RangeError);
  assert.throws(() => native.write32(map, 4094, 0), RangeError);
});

test('a value that does not fit the register is refused, not cut', ({ map }) => {
  assert.throws(() => native.write8(map, 0, 256), RangeError);
  assert.throws(() => native.write16(map, 0, 65536), RangeError);
  assert.throws(() => native.write32(map, 0, 2 ** 32), RangeError);
  assert.throws(() => native.write8(map, 0, -1), RangeError);
  assert.is(native.read32(map, 0), 0);
});

test('a mapping that may only be read is not written (N7), a detached one not touched (N1)', ({ map, memory }) => {
  const readOnly = native.mapShared(memory, 0, 4096, MapFlag.READ_ONLY);
  native.write32(map, 0, 5);
  assert.is(native.read32(readOnly, 0), 5);
  assert.throws(() => native.write32(readOnly, 0, 6), /EACCES/);
  native.unmapShared(readOnly);
  assert.throws(() => native.read32(readOnly, 0), RangeError);
  assert.throws(() => native.write32(readOnly, 0, 6), RangeError);
});

test("affinity is the thread's own and all or nothing", async () => {
  const program = `
    const { workerData, parentPort } = require('node:worker_threads');
    import(workerData).then(({ native }) => {
      const before = native.affinity();
      native.setAffinity([before.at(-1)]);
      const pinned = native.affinity();
      const codes = [[8191, before[0]], [], [100000]].map((cpus) => {
        try { native.setAffinity(cpus); } catch (error) { return error.code; }
      });
      native.yieldThread();
      parentPort.postMessage({ before, pinned, codes, after: native.affinity() });
    });`;
  const addon = new URL('../../native/index.js', import.meta.url).href;
  const here = native.affinity();
  const answer = await new Promise<{ before: number[]; pinned: number[]; codes: string[]; after: number[] }>(
    (resolve, reject) => {
      new Worker(program, { eval: true, workerData: addon }).once('message', resolve).once('error', reject);
    },
  );
  const last = here.at(-1) ?? -1;
  assert.equal(answer, { before: here, pinned: [last], codes: ['EINVAL', 'EINVAL', 'EINVAL'], after: [last] });
  assert.equal(native.affinity(), here);
});

test('a thread pauses as long as it was told, a millisecond at most', () => {
  for (const nanoseconds of [0, 3000, 1_000_000]) {
    const start = process.hrtime.bigint();
    native.pauseThread(nanoseconds);
    assert.ok(process.hrtime.bigint() - start >= nanoseconds, `${nanoseconds}`);
  }
  for (const wrong of [-1, 1.5, 1_000_001, Number.NaN, '5', undefined]) {
    assert.throws(() => native.pauseThread(wrong as number), /nanoseconds/, String(wrong));
  }
});

test.run();
