/** Where interrupts come from: VFIO's eventfds, the one line of a device without MSI-X, the calls of a vhost-user back-end. */

import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { echoPort } from '../../driver/backend/ports/built-in.js';
import { ErrorCode, VirtioError } from '../../driver/errors.js';
import { launch } from '../../driver/net/launch.js';
import { openPort } from '../../driver/open.js';
import { VfioFunction } from '../../driver/pci/vfio-function.js';
import { Isr } from '../../driver/spec/pci.js';
import type { PciFunction } from '../../driver/spec/pci-function.js';
import { VfioPciIrq, VfioRequest } from '../../driver/spec/vfio.js';
import { PciInterrupts } from '../../driver/transport/pci-interrupts.js';
import { native } from '../../native/index.js';
import { FAKE_ADDRESS, FakeVfio, type FakeVfioOptions } from '../support/fake-vfio.js';
import { GuestBackend } from '../support/guest-backend.js';
import type { SleeperResult } from '../support/guest-events-worker.js';
import { until } from '../support/until.js';

const test = suite('where interrupts come from');
const { INTX, MSIX, REQ } = VfioPciIrq;

async function withVfio(
  body: (fn: VfioFunction, vfio: FakeVfio) => void | Promise<void>,
  options: FakeVfioOptions = {},
): Promise<void> {
  const folder = await mkdtemp(join(tmpdir(), 'events-'));
  try {
    const vfio = new FakeVfio(folder, options);
    const { sysfs, groups } = vfio;
    const fn = VfioFunction.open(FAKE_ADDRESS, { libc: vfio, sysfs, groups });
    await body(fn, vfio);
    fn.close();
    for (const [index, fds] of vfio.irqs) assert.equal(fds, [], `interrupts ${index} are off`);
    assert.is(vfio.open_.size, 0);
  } finally {
    await rm(folder, { recursive: true });
  }
}

test('VFIO: MSI-X and the line are never on together, and all go with the function', () =>
  withVfio((fn, vfio) => {
    assert.equal(fn.enableInterrupts(2), vfio.irqs.get(MSIX));
    const line = fn.enableLine();
    assert.equal(vfio.irqs.get(INTX), [line]);
    assert.equal(vfio.irqs.get(MSIX), []);
    fn.unmaskLine();
    assert.equal(vfio.unmasked, [INTX]);
    assert.is(fn.enableInterrupts(3).length, 3);
    assert.equal(vfio.irqs.get(INTX), []);
    fn.unmaskLine();
    assert.equal(vfio.unmasked, [INTX], 'a line that is off is not unmasked');
    fn.disableInterrupts();
    fn.enableLine();
    assert.is(fn.removalFd, vfio.irqs.get(REQ)?.[0]);
    assert.is(fn.removalFd, vfio.irqs.get(REQ)?.[0], 'the same one each time');
  }));

test('VFIO: a device without a line, and a kernel that does not tell of removal', () =>
  withVfio((fn, vfio) => {
    Object.assign(vfio.irqCounts, { [INTX]: 0, [REQ]: 0 });
    fn.enableInterrupts(1);
    assert.is(fn.enableLine(), undefined);
    assert.is(vfio.irqs.get(MSIX)?.length, 1, 'what was on stays on');
    assert.is(fn.removalFd, undefined);
  }));

test('VFIO: interrupts that the kernel refuses leave no descriptor behind', () =>
  withVfio(
    (fn) => {
      const before = native.createEventFd(0);
      assert.throws(() => fn.enableInterrupts(3), /EINVAL/);
      const after = native.createEventFd(0);
      assert.is(after, before + 1);
      for (const fd of [before, after]) native.closeFd(fd);
    },
    { failing: { [VfioRequest.DEVICE_SET_IRQS]: 22 } },
  ));

test('VFIO: fewer vectors than were asked for are none, and no descriptor stays behind', () =>
  withVfio((fn, vfio) => {
    vfio.vectorsMax = 1;
    const before = native.createEventFd(0);
    assert.throws(
      () => fn.enableInterrupts(3),
      (error: unknown) => error instanceof VirtioError && error.code === ErrorCode.UNSUPPORTED && error.value === 1,
    );
    const after = native.createEventFd(0);
    assert.is(after, before + 1);
    for (const fd of [before, after]) native.closeFd(fd);
    const interrupts = new PciInterrupts(fn, { configInterrupt: () => undefined, takeIsr: () => 0 });
    assert.is(interrupts.request([0, 2]), 'intx', 'the line serves');
    interrupts.close();
    assert.is(interrupts.request([]), 'msix');
    interrupts.close();
    vfio.vectorsMax = 0.5;
    vfio.irqCounts[INTX] = 0;
    assert.is(interrupts.request([0]), 'none', 'it is looked at');
  }));

/** A function with a line and so many vectors, and a device behind it. */
class LineFunction {
  readonly interruptVectors: number;
  readonly lineFd = native.createEventFd(0);
  unmasked = 0;
  isLineOn = false;
  vectors: number[] = [];
  isr = 0;
  configInterrupts = 0;

  constructor(interruptVectors: number) {
    this.interruptVectors = interruptVectors;
  }

  enableInterrupts(count: number): readonly number[] {
    this.vectors = Array.from({ length: count }, () => native.createEventFd(0));
    return this.vectors;
  }
  disableInterrupts(): void {
    for (const fd of this.vectors.splice(0)) native.closeFd(fd);
    this.isLineOn = false;
  }
  enableLine(): number {
    this.isLineOn = true;
    return this.lineFd;
  }
  unmaskLine(): void {
    this.unmasked++;
  }

  interrupts(): PciInterrupts {
    return new PciInterrupts(this as unknown as PciFunction, {
      configInterrupt: () => {
        this.configInterrupts++;
      },
      takeIsr: () => {
        const { isr } = this;
        this.isr = 0;
        return isr;
      },
    });
  }

  fire(isr: number): void {
    this.isr = isr;
    native.signalEventFd(this.lineFd);
  }
}

test('one line: the interrupt status says what for; every queue is woken, and the line unmasked each time', async () => {
  const fn = new LineFunction(0);
  const interrupts = fn.interrupts();
  assert.is(interrupts.request([0, 2]), 'intx');
  const fds = [0, 2].map((queue) => interrupts.fdOf(queue)!);
  assert.is(interrupts.fdOf(1), undefined);
  const woken = (): number[] => fds.map((fd) => Number(native.drainEventFd(fd)));
  fn.fire(Isr.QUEUE);
  await until(() => fn.unmasked === 1, 'it was unmasked');
  assert.equal(woken(), [1, 1]);
  assert.is(fn.configInterrupts, 0);
  fn.fire(Isr.CONFIG);
  await until(() => fn.unmasked === 2, 'it was unmasked');
  assert.equal(woken(), [0, 0]);
  assert.is(fn.configInterrupts, 1);
  fn.fire(0);
  await until(() => fn.unmasked === 3, 'another device of the line');
  assert.equal([...woken(), fn.configInterrupts], [0, 0, 1]);
  // The next start of the port: what was signalled before is forgotten, and the line works.
  fn.fire(Isr.QUEUE);
  await until(() => fn.unmasked === 4, 'it was unmasked');
  assert.is(interrupts.request([0, 2]), 'intx');
  assert.is(fn.unmasked, 5);
  assert.equal(woken(), [0, 0]);
  interrupts.close();
  interrupts.close();
  assert.is(fn.isLineOn, false);
  native.closeFd(fn.lineFd);
});

test('vectors: one for configuration and one a queue; too few, and the line serves, or configuration alone', () => {
  for (const [vectors, queues, kind, on] of [
    [3, [0, 2], 'msix', 3],
    [2, [0, 2], 'intx', 0],
    [3, [], 'msix', 1],
    [0, [], 'none', 0],
  ] as const) {
    const fn = new LineFunction(vectors);
    const interrupts = fn.interrupts();
    assert.is(interrupts.request(queues), kind);
    assert.equal([fn.vectors.length, interrupts.vectors], [on, on]);
    assert.is(interrupts.vectorOf(2), kind === 'msix' && on === 3 ? 2 : undefined);
    interrupts.close();
    native.closeFd(fn.lineFd);
  }
  const without = new LineFunction(1);
  Object.assign(without, { enableLine: undefined });
  const interrupts = without.interrupts();
  assert.is(interrupts.request([0]), 'msix', 'configuration at least');
  assert.is(interrupts.fdOf(0), undefined);
  interrupts.close();
  native.closeFd(without.lineFd);
});

test('a thread without an event loop sleeps until one of its descriptors is signalled, or the time is over', () => {
  const fds = Int32Array.from({ length: 256 }, () => -1);
  assert.is(native.waitReadable(fds, 1), false, 'negative ones count for nothing');
  assert.is(native.waitReadable(new Int32Array(0), 0), false);
  fds[255] = native.createEventFd(0);
  assert.is(native.waitReadable(fds, 5), false);
  native.signalEventFd(fds[255]);
  assert.is(native.waitReadable(fds, 30_000), true);
  assert.is(native.drainEventFd(fds[255]), 1n, 'it only looks');
  native.closeFd(fds[255]);
  const bad: readonly (readonly [unknown, unknown])[] = [
    [new Int32Array(257), 0],
    [new Uint32Array(1), 0],
    [[1], 0],
    [fds, -1],
    [fds, 2 ** 31],
    [fds, 'x'],
  ];
  for (const [list, time] of bad) assert.throws(() => native.waitReadable(list as Int32Array, time as number));
});

test('vhost-user: the back-end’s calls end the sleep, on the event loop and on a thread', async () => {
  await using backend = await GuestBackend.start({ port: echoPort() });
  await using port = await openPort(`vhost-user:${backend.path}`, { ringSize: 64, pages: '4K', interrupts: 'receive' });
  await port.start();
  assert.is(port.interrupts, 'eventfd');
  const burst = port.burst(8);
  for (let round = 0; round < 200; round++) {
    const waiting = port.rxQueue(0).waitForPackets({ timeoutMs: 30_000 });
    burst.allocate(1);
    burst.bytes(0).setLength(60);
    assert.is(port.txQueue(0).send(burst), 1);
    assert.is(await waiting, true, `round ${round}`);
    assert.is(port.rxQueue(0).receive(burst), 1);
    burst.free();
  }
});

test('vhost-user: a thread sleeps over stops and starts of the port', async () => {
  await using backend = await GuestBackend.start({ port: echoPort() });
  await using port = await openPort(`vhost-user:${backend.path}`, { ringSize: 64, pages: '4K', interrupts: 'receive' });
  await port.start();
  const launched = await launch(port, new URL('../support/guest-events-worker.js', import.meta.url));
  for (let round = 0; round < 3; round++) {
    await port.stop();
    await port.start();
  }
  await launched.stop();
  const [result] = (await launched.finished) as SleeperResult[];
  assert.is(result!.forwarded, 0);
});

test.run();
