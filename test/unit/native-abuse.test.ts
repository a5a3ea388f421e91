/** Every export of the addon called wrongly: an error of JavaScript each time, never the end of the process. */

import { Worker } from 'node:worker_threads';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { type CopyEngine, native, PollEvent } from '../../native/index.js';

type Loose = (...values: unknown[]) => unknown;

/** Values that no argument should take to pieces. */
const STRANGE: readonly unknown[] = [
  undefined,
  null,
  true,
  -1,
  0.5,
  Number.NaN,
  Number.POSITIVE_INFINITY,
  Number.NEGATIVE_INFINITY,
  2 ** 31,
  2 ** 32,
  2 ** 53,
  2 ** 64,
  -(2 ** 63),
  0n,
  -1n,
  2n ** 64n,
  2n ** 200n,
  '',
  'x'.repeat(5000),
  '\0',
  '\ud800',
  Symbol('strange'),
  [],
  {},
  () => {},
  new ArrayBuffer(0),
  new ArrayBuffer(8),
  new SharedArrayBuffer(8),
  new Uint8Array(0),
  new Float64Array(2),
  new DataView(new ArrayBuffer(8)),
  new Proxy([], {}),
  new Proxy(
    {},
    {
      get: () => {
        throw new Error('trap');
      },
    },
  ),
];

/** As many places as any function has. */
const ANY_ARGUMENTS = 4;

const test = suite('native abuse');

/** Calls `action`, and accepts a result, which it returns, or an Error. */
function survives(action: () => unknown): unknown {
  try {
    return action();
  } catch (error) {
    assert.instance(error, Error);
    return undefined;
  }
}

test('every function takes strange values in every place', () => {
  const before = native.affinity();
  const names = Object.keys(native).filter((name) => name !== 'CopyEngine') as (keyof typeof native)[];
  assert.ok(names.length >= 27);
  for (const name of names) {
    const call = native[name] as unknown as Loose;
    // The numbers before a strange value are of no descriptor, so that none of the test process is closed or changed.
    // `undefined` in the first place of all of them is a call without arguments.
    for (const value of STRANGE) {
      for (let place = 0; place < ANY_ARGUMENTS; place++) {
        const values: unknown[] = [2 ** 30, 1, 1, 0].slice(0, place);
        const result = survives(() => Reflect.apply(call, undefined, [...values, value]));
        if (name === 'createEventFd' && typeof result === 'number') native.closeFd(result);
        if (name === 'socketPair') for (const fd of result as number[]) native.closeFd(fd);
      }
    }
    survives(() => Reflect.construct(call, []));
  }
  native.setAffinity(before);
});

test('wrong types are TypeErrors, wrong numbers RangeErrors', () => {
  const loose = native as unknown as Record<string, Loose>;
  const call =
    (name: string, ...values: unknown[]) =>
    (): unknown =>
      loose[name]?.(...values);
  for (const name of ['closeFd', 'duplicateFd', 'inspectFd', 'acceptUnix', 'drainEventFd', 'createEventFd']) {
    for (const value of [undefined, '3', 3n, null, {}]) assert.throws(call(name, value), TypeError, name);
    for (const value of [-1, 0.5, Number.NaN, 2 ** 32]) assert.throws(call(name, value), RangeError, name);
  }
  assert.throws(call('createMemory', 5, 4096, 0), TypeError);
  assert.throws(call('createMemory', 'name', '4096', 0), TypeError);
  assert.throws(call('createMemory', 'name', 0, 0), RangeError);
  assert.throws(call('createMemory', 'name', 2 ** 21, 12345), RangeError);
  assert.throws(call('createMemory', 'name', 4096, 2 ** 21), RangeError);
  assert.throws(call('createMemory', 'na\0me', 4096, 0), RangeError);
  assert.throws(call('createMemory', 'x'.repeat(300), 4096, 0), /EINVAL/);
  assert.throws(call('unmapShared', new ArrayBuffer(8)), TypeError);
  assert.throws(call('unmapShared', new Uint8Array(8)), TypeError);
  assert.throws(call('addressOf', new ArrayBuffer(8)), TypeError);
  assert.throws(call('connectUnix', 5), TypeError);
  assert.throws(call('listenUnix', '/tmp/x', -1), RangeError);
  assert.throws(call('read32', new Uint8Array(8), 0), TypeError);
  assert.throws(call('write32', new ArrayBuffer(8), 0, '5'), TypeError);
  assert.throws(call('setAffinity', 0), TypeError);
  assert.throws(call('setAffinity', ['0']), TypeError);
  assert.throws(call('pollFd', 0, PollEvent.READABLE), TypeError);
  assert.throws(
    call('pollFd', 0, 0, () => {}),
    RangeError,
  );
  assert.throws(
    call('pollFd', 0, 8, () => {}),
    RangeError,
  );
});

test('a view of a region is not unmapped behind its engine', () => {
  const memory = native.createMemory('guest', 4096, 0);
  const engine = new native.CopyEngine(1);
  engine.addRegion({ fd: memory, fileOffset: 0, guestAddress: 0n, bytes: 4096 });
  const view = engine.view(0n, 4096);
  assert.throws(() => native.unmapShared(view), TypeError);
  assert.is(view.byteLength, 4096);
  engine.close();
  native.closeFd(memory);
});

test('CopyEngine: no `new`, wrong capacities, wrong receivers, subclasses', () => {
  const { CopyEngine } = native;
  const construct = CopyEngine as unknown as { new (...values: unknown[]): CopyEngine } & Loose;
  assert.throws(() => construct(4), TypeError);
  assert.throws(() => new construct(), TypeError);
  for (const value of [0, -1, 0.5, Number.NaN, 2 ** 20 + 1, 2 ** 53])
    assert.throws(() => new construct(value), RangeError);
  for (const value of STRANGE) survives(() => new construct(value));
  survives(() => Reflect.construct(CopyEngine, [4], Object));
  survives(() => Reflect.construct(CopyEngine, [4], Array));
  class Derived extends CopyEngine {}
  const derived = new Derived(2);
  assert.is(derived.jobs.length, 16);
  derived.close();

  const event = native.createEventFd(0);
  const poll = native.pollFd(event, PollEvent.READABLE, () => {});
  poll.close();
  native.closeFd(event);
  const receivers: unknown[] = [
    undefined,
    {},
    CopyEngine,
    Object.create(CopyEngine.prototype),
    CopyEngine.prototype,
    poll,
    native,
  ];
  for (const name of Object.getOwnPropertyNames(CopyEngine.prototype)) {
    if (name === 'constructor') continue;
    const method = (CopyEngine.prototype as unknown as Record<string, Loose>)[name];
    for (const receiver of receivers) assert.throws(() => Reflect.apply(method as Loose, receiver, []), Error);
  }
  const pollClass = poll.constructor as unknown as { new (...values: unknown[]): unknown } & Loose;
  assert.throws(() => pollClass(), TypeError);
  for (const value of STRANGE) survives(() => new pollClass(value, value, value));
});

test('CopyEngine: strange values in every method, open and closed', () => {
  const memory = native.createMemory('guest', 4096, 0);
  for (const isClosed of [false, true]) {
    const engine = new native.CopyEngine(4);
    engine.addRegion({ fd: memory, fileOffset: 0, guestAddress: 0n, bytes: 4096 });
    engine.setPool(new ArrayBuffer(64));
    if (isClosed) engine.close();
    const methods = engine as unknown as Record<string, Loose>;
    for (const name of [
      ...Object.getOwnPropertyNames(native.CopyEngine.prototype),
      'run',
      'peek',
      'relay',
      'markDirty',
    ]) {
      if (name === 'constructor' || name === 'close') continue;
      for (const value of STRANGE) {
        survives(() => methods[name]?.(value));
        survives(() => methods[name]?.(0n, value));
        survives(() => methods[name]?.(0, 0, value));
        survives(() => methods[name]?.(0, 0, 1, value));
      }
    }
    survives(() => engine.setTranslated(true));
    const window = { iova: 0n, bytes: 4096n, guestAddress: 0n, readable: true, writable: true };
    for (const key of Object.keys(window)) {
      for (const value of STRANGE) survives(() => engine.addWindow({ ...window, [key]: value } as typeof window));
    }
    const log = { fd: memory, fileOffset: 0, bytes: 16 };
    for (const key of Object.keys(log)) {
      for (const value of STRANGE) survives(() => engine.setLog({ ...log, [key]: value } as typeof log));
    }
    const good = { fd: memory, fileOffset: 0, guestAddress: 8192n, bytes: 16, readOnly: false };
    for (const key of Object.keys(good)) {
      for (const value of STRANGE) survives(() => engine.addRegion({ ...good, [key]: value } as typeof good));
    }
    engine.close();
  }
  native.closeFd(memory);
});

test('jobs made of random words run without harm', () => {
  const memory = native.createMemory('guest', 65536, 0);
  const engine = new native.CopyEngine(64);
  engine.addRegion({ fd: memory, fileOffset: 0, guestAddress: 0n, bytes: 32768 });
  engine.addRegion({ fd: memory, fileOffset: 32768, guestAddress: 0xffff_ffff_ffff_8000n, bytes: 32768 });
  engine.setPool(new ArrayBuffer(8192));
  let state = 12345;
  for (let round = 0; round < 2000; round++) {
    for (let i = 0; i < engine.jobs.length; i++) {
      state = (Math.imul(state, 1103515245) + 12345) >>> 0;
      engine.jobs[i] = [state, 0, 0xffff_ffff, state >>> 20, state >>> 31][state % 5] ?? 0;
    }
    const failed = engine.run(64);
    assert.ok(failed >= 0 && failed <= 64);
  }
  engine.close();
  native.closeFd(memory);
});

test('a region whose getters close the engine', () => {
  const memory = native.createMemory('guest', 4096, 0);
  const engine = new native.CopyEngine(1);
  const region = {
    fd: memory,
    fileOffset: 0,
    guestAddress: 0n,
    get bytes(): number {
      engine.close();
      return 4096;
    },
  };
  assert.throws(() => engine.addRegion(region), /closed/);
  native.closeFd(memory);
});

test('the addon is loaded by many threads at once, which end with everything open', async () => {
  const program = `
    const { workerData, parentPort } = require('node:worker_threads');
    import(workerData).then(({ native }) => {
      const memory = native.createMemory('left', 1 << 20, 0);
      const map = native.mapShared(memory, 0, 1 << 20, 0);
      const engine = new native.CopyEngine(32);
      engine.addRegion({ fd: memory, fileOffset: 0, guestAddress: 0n, bytes: 1 << 20 });
      engine.setPool(map);
      const views = Array.from({ length: 20 }, (_, i) => engine.view(BigInt(i * 64), 64));
      for (let i = 0; i < 32; i++) engine.jobs.set([i * 2048, 0, 524288 + i * 2048, 76, 0, 9], i * 8);
      native.pollFd(native.createEventFd(1), 1, () => {});
      globalThis.kept = { map, engine, views };
      parentPort.postMessage(engine.run(32));
      for (;;) engine.run(32);
    });`;
  const addon = new URL('../../native/index.js', import.meta.url).href;
  for (let round = 0; round < 3; round++) {
    const workers = Array.from({ length: 6 }, () => new Worker(program, { eval: true, workerData: addon }));
    const first = (worker: Worker): Promise<number> =>
      new Promise((resolve, reject) => worker.once('message', resolve).once('error', reject));
    assert.equal(await Promise.all(workers.map(first)), Array(6).fill(0));
    await Promise.all(workers.map((worker) => worker.terminate()));
  }
});

test.run();
