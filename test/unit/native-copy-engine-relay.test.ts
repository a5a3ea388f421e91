/** Peeking at packets and handing them to another guest, as JavaScript sees it; the core has its own tests in native/test. */

import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { CopyDirection, type CopyEngine, CopyJob, CopyStatus, native } from '../../native/index.js';

const PAGE = 4096;
const { FROM_GUEST, TO_GUEST } = CopyDirection;
const { OK, OUTSIDE_MEMORY } = CopyStatus;

/** A guest of two pages at an address, and its engine. */
class Guest {
  readonly engine: CopyEngine = new native.CopyEngine(8);
  readonly bytes: Uint8Array;
  readonly #fd: number;

  constructor(address: bigint, pool: Uint8Array) {
    this.#fd = native.createMemory('guest', 2 * PAGE, 0);
    this.bytes = new Uint8Array(native.mapShared(this.#fd, 0, 2 * PAGE, 0));
    for (let index = 0; index < this.bytes.length; index++) this.bytes[index] = index % 251;
    this.engine.addRegion({ fd: this.#fd, fileOffset: 0, guestAddress: address, bytes: 2 * PAGE });
    this.engine.setPool(pool.buffer as ArrayBuffer);
  }

  job(number: number, address: number, poolOffset: number, length: number, direction: number, source = 0): void {
    this.engine.jobs.set([address, 0, poolOffset, length, direction, 99, 0, source], number * CopyJob.WORDS);
  }
  status(number: number): number {
    return this.engine.jobs[number * CopyJob.WORDS + CopyJob.STATUS]!;
  }

  close(): void {
    this.engine.close();
    native.unmapShared(this.bytes.buffer as ArrayBuffer);
    native.closeFd(this.#fd);
  }
}

const test = suite<{ from: Guest; into: Guest; pool: Uint8Array }>('native relay');

test.before.each((context) => {
  context.pool = new Uint8Array(PAGE);
  context.from = new Guest(0x1000n, context.pool);
  context.into = new Guest(0x8000n, context.pool);
});
test.after.each(({ from, into }) => {
  from.close();
  into.close();
});

test('a peek copies the first bytes and checks all of them', ({ from, pool }) => {
  from.job(0, 0x1000, 0, 1000, FROM_GUEST);
  from.job(1, 0x1000 + 2 * PAGE - 999, 100, 1000, FROM_GUEST);
  from.job(2, 0x1000, 200, 10, FROM_GUEST);
  assert.is(from.engine.peek(3, 28), 1);
  assert.equal([from.status(0), from.status(1), from.status(2)], [OK, OUTSIDE_MEMORY, OK]);
  assert.equal(pool.subarray(0, 28), from.bytes.subarray(0, 28));
  assert.ok(pool.subarray(28, 200).every((byte) => byte === 0));
  assert.equal(pool.subarray(200, 210), from.bytes.subarray(0, 10));
  assert.is(pool[210], 0);
});

test('a peek says which jobs begin as those just before them do', ({ from }) => {
  const at = (n: number): number => 0x1000 + n * 64;
  for (let n = 1; n < 8; n++) from.bytes.copyWithin(n * 64, 0, 64);
  // Differs in the last byte that is looked at, in one behind, and in the first.
  from.bytes[2 * 64 + 27]! ^= 1;
  from.bytes[4 * 64 + 28]! ^= 1;
  from.bytes[6 * 64]! ^= 1;
  const sources = (most: number): number[] => {
    for (let n = 0; n < 8; n++) from.job(n, at(n), n * 64, 40, FROM_GUEST, 77);
    assert.is(from.engine.peek(8, most), 0);
    return Array.from({ length: 8 }, (_, n) => from.engine.jobs[n * CopyJob.WORDS + CopyJob.SOURCE]!);
  };
  // The first job of all is the one that the region is looked up for: it is not compared.
  assert.equal(sources(28), [0, 1, 2, 3, 3, 3, 6, 7]);
  assert.equal(sources(28), [0, 0, 2, 3, 3, 3, 6, 7]);
  assert.equal(sources(27), [0, 0, 0, 0, 0, 0, 6, 7]);
  assert.equal(sources(96), [0, 0, 2, 3, 4, 5, 6, 7]);
  assert.equal(sources(5), [0, 0, 0, 0, 0, 0, 6, 7]);
  // Of other lengths: never the same.
  for (let n = 0; n < 3; n++) from.job(n, at(0), n * 64, 20 + n, FROM_GUEST, 77);
  assert.is(from.engine.peek(3, 28), 0);
  assert.equal(
    [0, 1, 2].map((n) => from.engine.jobs[n * CopyJob.WORDS + CopyJob.SOURCE]),
    [0, 1, 2],
  );
});

test('packets go to the other guest in the order its jobs say, with its header and their first bytes from the pool', ({
  from,
  into,
  pool,
}) => {
  pool.fill(0xaa);
  into.engine.setHeader([1, 2, 3, 4]);
  from.job(3, 0x1000, 0, 106, FROM_GUEST);
  from.job(5, 0x1100, 32, 106, FROM_GUEST);
  into.job(0, 0x8000, 0, 100, TO_GUEST, 5);
  into.job(1, 0x8200, 0, 200, TO_GUEST, 3);
  into.job(2, 0x8000 + 2 * PAGE, 0, 100, TO_GUEST, 3);
  into.job(3, 0x8400, 0, 100, TO_GUEST, 3);
  assert.is(from.engine.relay(into.engine.number, 4, 10, 20), 2);
  // Behind what has not arrived nothing is done.
  assert.equal([into.status(2), into.status(3)], [OUTSIDE_MEMORY, 99]);
  assert.is(from.status(3), OK);
  assert.is(into.bytes[0x400], 0x400 % 251);
  for (const [at, source] of [
    [0, 0x100],
    [0x200, 0],
  ] as const) {
    assert.equal([...into.bytes.subarray(at, at + 4)], [1, 2, 3, 4]);
    assert.ok(into.bytes.subarray(at + 4, at + 24).every((byte) => byte === 0xaa));
    assert.equal(into.bytes.subarray(at + 24, at + 100), from.bytes.subarray(source + 30, source + 106));
    assert.is(into.bytes[at + 100], (at + 100) % 251);
  }
});

test('a header is a list of bytes, 32 at most', ({ into }) => {
  for (const header of [undefined, 3, 'ab', [256], [-1], [1.5], new Array(33).fill(0)]) {
    assert.throws(() => Reflect.apply(into.engine.setHeader, into.engine, [header]), /header/);
  }
  into.engine.setHeader(new Array(32).fill(255));
  into.engine.setHeader([]);
});

test('engines are told apart: one that is closed, or never was, or is the same, takes nothing', ({
  from,
  into,
  pool,
}) => {
  const numbers = new Set([from.engine.number, into.engine.number]);
  assert.is(numbers.size, 2);
  assert.throws(() => from.engine.relay(from.engine.number, 1, 0, 0), RangeError);
  for (const number of [0, -1, 2 ** 32, 1.5e9, Number.NaN]) {
    assert.throws(() => from.engine.relay(number, 1, 0, 0), RangeError);
  }
  const gone = new Guest(0n, pool);
  gone.close();
  assert.throws(() => from.engine.relay(gone.engine.number, 1, 0, 0), RangeError);
  const next = new Guest(0n, pool);
  assert.is.not(next.engine.number, gone.engine.number);
  next.close();
  for (const values of [
    ['1', 1, 1],
    [1, 1n, 1],
    [1, 1, undefined],
    [null, {}, []],
  ]) {
    const call = (): number => Reflect.apply(from.engine.relay, from.engine, [into.engine.number, ...values]);
    assert.throws(call, TypeError);
  }
  assert.throws(() => Reflect.apply(from.engine.peek, from.engine, [1]), TypeError);
  // Below 0 is none, and beyond the list there are none.
  assert.is(from.engine.relay(into.engine.number, -5, -1, -1), 0);
  for (let number = 0; number < 8; number++) into.job(number, 0x8000, 0, 10, TO_GUEST, number);
  for (let number = 0; number < 8; number++) from.job(number, 0x1000, 0, 10, FROM_GUEST);
  assert.is(from.engine.relay(into.engine.number, 12, 0, 0), 8);
  // A closed engine has no memory to read from.
  const { engine } = gone;
  assert.is(engine.relay(into.engine.number, 1, 0, 0), 0);
});

test.run();
