/** What a doorbell writes where: registers of 16 and 32 bits in memory and through a file, and eventfds. */

import { closeSync, openSync, readSync } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { Burst } from '../../driver/memory/burst.js';
import { DoorbellRinger } from '../../driver/net/doorbell.js';
import { Feature } from '../../driver/spec/features.js';
import type { Doorbell } from '../../driver/spec/pci-function.js';
import { native } from '../../native/index.js';
import { againstDevice, sendPackets } from '../support/driver-abuse.js';
import { HandDevice } from '../support/hand-device.js';

const test = suite('doorbells');
const PAGE = 4096;

/** Runs a body with a register of a memory file; `value` reads it. */
function withRegister(width: 16 | 32, body: (doorbell: Doorbell, value: () => number) => void): void {
  const fd = native.createMemory('doorbell', PAGE, 0);
  const view = native.mapShared(fd, 0, PAGE, 0);
  try {
    const doorbell: Doorbell = { kind: 'mmio', fd, fileOffset: 0, bytes: PAGE, offset: 8, width, value: 3 };
    body(doorbell, () => new DataView(view).getUint32(8, true));
  } finally {
    native.unmapShared(view);
    native.closeFd(fd);
  }
}

test('virtio 1.2 §4.1.5.2.1: 16 bits are the index alone, 32 bits the position above it', () => {
  for (const [width, position, expected] of [
    [16, 0x1234, 3],
    [32, 0, 3],
    [32, 0x1234, 0x1234_0003],
    [32, 0x7fff, 0x7fff_0003],
    [32, 0x8000, 0x8000_0003],
    [32, 0xffff, 0xffff_0003],
  ] as const) {
    withRegister(width, (doorbell, value) => {
      const ringer = new DoorbellRinger(doorbell);
      ringer.ring(position);
      ringer.close();
      assert.is(value(), expected, `${width} bits at ${position}`);
    });
  }
});

test('the same through a file, as I/O ports are', async () => {
  const folder = await mkdtemp(join(tmpdir(), 'doorbell-'));
  const fd = openSync(join(folder, 'ports'), 'w+');
  const read = (bytes: number): number[] => {
    const buffer = Buffer.alloc(bytes);
    readSync(fd, buffer, 0, bytes, 16);
    return [...buffer];
  };
  const narrow = new DoorbellRinger({ kind: 'file', fd, position: 16, width: 16, value: 0x0102 });
  narrow.ring(0xffff);
  assert.equal(read(4), [2, 1, 0, 0]);
  const wide = new DoorbellRinger({ kind: 'file', fd, position: 16, width: 32, value: 0x0102 });
  wide.ring(0xabcd);
  assert.equal(read(4), [2, 1, 0xcd, 0xab]);
  wide.ring(1);
  assert.equal(read(4), [2, 1, 1, 0]);
  closeSync(fd);
  await rm(folder, { recursive: true });
});

test('a queue tells the available index that it has stored, over the wrap of both 15 and 16 bits', () => {
  withRegister(32, (doorbell, value) => {
    using device = new HandDevice({ size: 64, doorbell });
    const burst = new Burst(device.pool, 64);
    for (let sent = 0; sent < 70_000; sent += 64) {
      assert.is(burst.allocate(64), 64);
      for (let index = 0; index < 64; index++) burst.bytes(index).setLength(60);
      assert.is(device.tx.send(burst), 64);
      assert.is(value() & 0xffff, 3);
      assert.is(value() >>> 16, (sent + 64) & 0xffff);
      for (const id of device.txRing.take()) device.txRing.use(id, 0);
      device.txRing.publish();
    }
  });
});

test('doorbells name queues as the device does with NOTIF_CONFIG_DATA, and have 32 bits with NOTIFICATION_DATA, when that is chosen', async () => {
  const offers = [Feature.NOTIFICATION_DATA, Feature.NOTIF_CONFIG_DATA];
  for (const notificationData of [true, false]) {
    await againstDevice({ offers, port: { notificationData } }, async ({ start, port, log, device }) => {
      await start();
      assert.ok(port.features?.has(Feature.NOTIF_CONFIG_DATA));
      assert.is(port.features?.has(Feature.NOTIFICATION_DATA), notificationData);
      const width = notificationData ? 32 : 16;
      assert.equal(
        log.doorbells.slice(0, 2).map((doorbell) => [doorbell.width, doorbell.value]),
        [
          [width, 0x4e00],
          [width, 0x4e01],
        ],
      );
      assert.is(sendPackets(port, 3), 3);
      assert.ok(native.drainEventFd(device.setups.get(1)!.kickFd!) > 0n, 'and the device hears of it');
    });
  }
});

test.run();
