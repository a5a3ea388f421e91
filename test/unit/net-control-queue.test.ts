/** The driver's end of the control queue: one command at a time, and a device that answers wrongly or not at all (abuse D33). */

import { setTimeout as delay } from 'node:timers/promises';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { ErrorCode, type VirtioError } from '../../driver/errors.js';
import { DmaMemory } from '../../driver/memory/dma-memory.js';
import { CONTROL_BUFFER_BYTES, CONTROL_COMMAND_BYTES, ControlQueue } from '../../driver/net/control-queue.js';
import { clearRing, placeRing, ringBytes, ringViews } from '../../driver/net/queue-handle.js';
import { DESC_WORDS } from '../../driver/ring/split-views.js';
import { ControlAck } from '../../driver/spec/control.js';
import { DescFlag } from '../../driver/spec/ring.js';
import { native } from '../../native/index.js';
import { HandRing } from '../support/hand-device.js';
import { PlainPackedDevice } from '../support/plain-packed-device.js';

const test = suite('control queue of the driver');
const full = process.env['VIRTIO_PMD_FULL'] === '1';

async function withQueue(
  body: (queue: ControlQueue, ring: HandRing, kick: number) => Promise<void>,
  size = 4,
): Promise<void> {
  using memory = DmaMemory.allocate({ bytes: ringBytes(size, false) + CONTROL_BUFFER_BYTES + 4096, pages: '4K' });
  const place = placeRing(memory, size, false);
  const kick = native.createEventFd(0);
  const queue = new ControlQueue(memory, place, memory.take(CONTROL_BUFFER_BYTES, 64), { kind: 'eventfd', fd: kick });
  try {
    await body(queue, new HandRing(memory, ringViews(memory, place)), kick);
  } finally {
    queue.close();
    native.closeFd(kick);
  }
}

async function codeOf(promise: Promise<unknown>): Promise<string> {
  return await promise.then(
    (value) => `answered ${value}`,
    (error: VirtioError) => error.code,
  );
}

/** The command that waits, number `number` of the ring: its head and bytes, and where the ack goes. */
function take(
  ring: HandRing,
  number = 0,
): { readonly head: number; readonly bytes: Uint8Array; readonly ack: Uint8Array } {
  // In ring order (virtio 1.2 §2.7.5).
  const head = (2 * number) % ring.size;
  assert.equal(ring.take(), [head]);
  const { desc } = ring.views;
  const flags = [desc[head * DESC_WORDS + 3], desc[(head + 1) * DESC_WORDS + 3]];
  assert.equal(flags, [DescFlag.NEXT | ((head + 1) << 16), DescFlag.WRITE]);
  assert.is(ring.buffer(head + 1).length, 1);
  return { head, bytes: ring.buffer(head), ack: ring.buffer(head + 1) };
}

async function commandsInARow(queue: ControlQueue, ring: HandRing, kick: number): Promise<void> {
  for (let number = 0; number < 10; number++) {
    const answer = queue.command(4, number, Uint8Array.of(1, 2, number));
    const { head, bytes, ack } = take(ring, number);
    assert.equal([...bytes], [4, number, 1, 2, number]);
    assert.is(native.drainEventFd(kick), 1n);
    ack[0] = number % 2 === 0 ? ControlAck.OK : ControlAck.ERR;
    ring.use(head, 1);
    ring.publish();
    assert.is(await answer, number % 2);
  }
}

test('commands one after the other, over the wrap of small rings', async () => {
  for (const size of [2, 4]) await withQueue(commandsInARow, size);
});

test('abuse-D33: an ack that was not written is neither OK nor ERR', () =>
  withQueue(async (queue, ring) => {
    const answer = queue.command(4, 0, new Uint8Array(2));
    take(ring);
    ring.use(0, 0);
    ring.publish();
    const ack = await answer;
    assert.ok(ack !== ControlAck.OK && ack !== ControlAck.ERR, `${ack}`);
  }));

test('abuse-D33: a wrong id, in full width, or an index that jumps: the queue is broken, and says so from then on', async () => {
  for (const [id, index] of [
    [1, 1],
    [4, 1],
    [0x1_0000, 1],
    [0xffff_ffff, 1],
    [0, 2],
    [0, 0x8000],
    [0, 0xffff],
  ] as const) {
    await withQueue(async (queue, ring) => {
      const answer = queue.command(4, 0, new Uint8Array(2));
      take(ring);
      ring.use(id, 1);
      ring.publish(index);
      assert.is(await codeOf(answer), ErrorCode.RING_BROKEN, `id ${id}, index ${index}`);
      assert.is(await codeOf(queue.command(4, 0, new Uint8Array(2))), ErrorCode.RING_BROKEN);
    });
  }
});

test('abuse-D33: no answer: the event loop goes on, and the wait ends', () =>
  withQueue(async (queue, ring) => {
    const answer = queue.command(4, 0, new Uint8Array(2));
    take(ring);
    let ticks = 0;
    const waited = answer.then(
      () => 'answered',
      (error: VirtioError) => error.code,
    );
    for (let round = 0; round < 20; round++) {
      await delay(2);
      ticks++;
    }
    assert.is(ticks, 20);
    if (full) {
      assert.is(await waited, ErrorCode.TIMEOUT);
      assert.is(await codeOf(queue.command(4, 0, new Uint8Array(2))), ErrorCode.RING_BROKEN);
    } else {
      ring.use(0, 1);
      ring.publish();
      assert.is(await waited, 'answered');
    }
  }));

test('a command that is too long, and one after close', () =>
  withQueue(async (queue) => {
    assert.is(await codeOf(queue.command(4, 0, new Uint8Array(CONTROL_COMMAND_BYTES - 1))), ErrorCode.INVALID_ARGUMENT);
    queue.close();
    queue.close();
    assert.is(await codeOf(queue.command(4, 0, new Uint8Array(2))), ErrorCode.RING_BROKEN);
  }));

/** The same on a packed ring of `size`; the body gets a device that asserts the rules of a chain as it takes it. */
async function withPackedQueue(
  size: number,
  body: (queue: ControlQueue, device: PlainPackedDevice, bytes: Uint8Array, kick: number) => Promise<void>,
): Promise<void> {
  using memory = DmaMemory.allocate({ bytes: ringBytes(size, false) + CONTROL_BUFFER_BYTES + 4096, pages: '4K' });
  const place = placeRing(memory, size, false, true);
  clearRing(memory, place);
  const kick = native.createEventFd(0);
  const at = memory.take(CONTROL_BUFFER_BYTES, 64);
  const queue = new ControlQueue(memory, place, at, { kind: 'eventfd', fd: kick });
  const offsetOf = (address: bigint): number => Number(address - memory.iovas.at(0));
  const device = new PlainPackedDevice({ ...place, buffer: memory.buffer }, false, offsetOf);
  try {
    await body(queue, device, new Uint8Array(memory.buffer, at, CONTROL_BUFFER_BYTES), kick);
  } finally {
    queue.close();
    native.closeFd(kick);
  }
}

test('packed: commands one after the other, over the wrap of rings that are even and odd', async () => {
  for (const size of [2, 4, 5]) {
    await withPackedQueue(size, async (queue, device, bytes, kick) => {
      for (let number = 0; number < 12; number++) {
        const answer = queue.command(4, number, Uint8Array.of(1, 2, number));
        const chain = device.take()!;
        const shape = chain.buffers.map(({ length, isWritable }) => [length, isWritable]);
        assert.equal(shape, [[5, false], [1, true]]); // biome-ignore format: one line
        assert.equal([...bytes.subarray(0, 5)], [4, number, 1, 2, number]);
        assert.is(native.drainEventFd(kick), 1n);
        assert.is(device.take(), undefined, 'one at a time');
        bytes[Number(chain.buffers[1]!.address - chain.buffers[0]!.address)] = number % 2;
        device.use(chain, 1);
        assert.is(await answer, number % 2);
      }
    });
  }
});

test('abuse-D33, abuse-D35: packed: a wrong id breaks the queue, and it says so from then on', async () => {
  for (const id of [1, 4, 0x7fff, 0xffff]) {
    await withPackedQueue(4, async (queue, device) => {
      const answer = queue.command(4, 0, new Uint8Array(2));
      device.take();
      device.write(id, 1, 2);
      assert.is(await codeOf(answer), ErrorCode.RING_BROKEN, `id ${id}`);
      assert.is(await codeOf(queue.command(4, 0, new Uint8Array(2))), ErrorCode.RING_BROKEN);
    });
  }
});

test.run();
