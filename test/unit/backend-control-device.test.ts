/** What a guest's commands do to a whole net device: on all of its threads, and to its configuration space. */

import { setTimeout as pause } from 'node:timers/promises';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import type { DeviceEvent } from '../../driver/backend/device-model.js';
import { DeviceThread } from '../../driver/backend/device-thread.js';
import { NetDevice } from '../../driver/backend/net-device.js';
import { sourcePort } from '../../driver/backend/ports/built-in.js';
import { AnnounceCommand, ControlAck, ControlClass, MacCommand, MqCommand } from '../../driver/spec/control.js';
import { Feature } from '../../driver/spec/features.js';
import { NetStatus } from '../../driver/spec/net-config.js';
import { DescFlag } from '../../driver/spec/ring.js';
import { native } from '../../native/index.js';
import { BUFFERS, FILE_BYTES, fileOffset, RawRing, REGION_A } from '../support/hand-guest.js';

const test = suite('commands to a net device');
const PAIRS = 2;
const CONTROL = 2 * PAIRS;
const REGION_BYTES = 128 * 4096;
/** The address of a device that was not given another, which the source sends to. */
const DEFAULT_ADDRESS = [2, 0, 0, 0, 0, 1];
const OTHER_ADDRESS = [2, 0, 0, 0, 0, 7];

/** A device on two threads with a source behind it, and a guest that speaks through its control queue. */
class CommandingGuest {
  readonly device: NetDevice;
  readonly events: DeviceEvent[] = [];
  readonly #fd = native.createMemory('virtio-test-guest', FILE_BYTES, 0);
  readonly #memory = native.mapShared(this.#fd, 0, FILE_BYTES, 0);
  readonly #bytes = new Uint8Array(this.#memory);
  readonly #threads: readonly DeviceThread[];
  #control: RawRing | undefined;

  constructor(threads: readonly DeviceThread[]) {
    this.#threads = threads;
    this.device = new NetDevice(threads, { port: sourcePort({ rate: 2000 }), queuePairs: PAIRS });
    this.device.onEvent = (event) => this.events.push(event);
  }

  async start(): Promise<void> {
    const { device } = this;
    await device.setFeatures(device.offered.without(Feature.EVENT_IDX, Feature.RING_PACKED));
    await device.setMemory([
      { fd: this.#fd, fileOffset: fileOffset(REGION_A), guestAddress: REGION_A, bytes: REGION_BYTES },
    ]);
    this.#control = await this.#startRing(CONTROL);
  }

  /** From here on the source has somebody to send to. */
  async startReceiveQueues(): Promise<void> {
    for (const index of [0, 2]) await this.#startRing(index);
  }

  async #startRing(index: number): Promise<RawRing> {
    const ring = new RawRing(this.#memory, index, 16);
    const { size, desc, avail, used } = ring;
    await this.device.enableRing(index, true);
    const fds = { kickFd: undefined, callFd: undefined, errFd: undefined };
    await this.device.startRing(index, { size, desc, avail, used, base: 0, ...fds });
    return ring;
  }

  async command(...bytes: number[]): Promise<void> {
    const ring = this.#control!;
    const ackAt = BUFFERS + 4096n;
    this.#bytes.set(bytes, fileOffset(BUFFERS));
    this.#bytes[fileOffset(ackAt)] = 0xee;
    ring.describe(0, BUFFERS, bytes.length, DescFlag.NEXT, 1);
    ring.describe(1, ackAt, 1, DescFlag.WRITE);
    ring.offer(0);
    await until(() => ring.takeUsed().length === 1, 'the answer');
    assert.is(this.#bytes[fileOffset(ackAt)], ControlAck.OK, `${bytes}`);
  }

  dropped(pair: number): number {
    return this.device.statistics(2 * pair).drops.filterUnicast;
  }

  async close(): Promise<void> {
    await this.device.close();
    for (const thread of this.#threads) await thread.stop();
    native.unmapShared(this.#memory);
    native.closeFd(this.#fd);
  }
}

async function until(isSo: () => boolean, what: string): Promise<void> {
  for (const end = performance.now() + 20_000; !isSo(); ) {
    assert.ok(performance.now() < end, what);
    await pause(2);
  }
}

async function withGuest(body: (guest: CommandingGuest) => Promise<void>): Promise<void> {
  const threads = [await DeviceThread.start({ poolSize: 512 }), await DeviceThread.start({ poolSize: 512 })];
  const guest = new CommandingGuest(threads);
  try {
    await body(guest);
  } finally {
    await guest.close();
  }
}

test('what the guest wants to receive counts on the threads of all pairs, and for a pair that moves', () =>
  withGuest(async (guest) => {
    const { device } = guest;
    await guest.start();
    await guest.command(ControlClass.MQ, MqCommand.VQ_PAIRS_SET, PAIRS, 0);
    await guest.command(ControlClass.MAC, MacCommand.ADDR_SET, ...OTHER_ADDRESS);
    assert.equal([...device.config.subarray(0, 6)], OTHER_ADDRESS, 'the configuration space has it');
    await guest.startReceiveQueues();
    await until(() => guest.dropped(0) > 0 && guest.dropped(1) > 0, 'packets for the old address are dropped');
    const third = await DeviceThread.start({ poolSize: 512 });
    try {
      await device.moveQueuePair(1, third);
      const before = guest.dropped(1);
      await until(() => guest.dropped(1) > before, 'on the new thread, too');
      assert.equal([...device.config.subarray(0, 6)], OTHER_ADDRESS, 'which changes nothing');
      await guest.command(ControlClass.MAC, MacCommand.ADDR_SET, ...DEFAULT_ADDRESS);
      await pause(20);
      const after = [guest.dropped(0), guest.dropped(1)];
      await pause(50);
      assert.equal([guest.dropped(0), guest.dropped(1)], after, "packets for the guest's address are not dropped");
      await guest.command(ControlClass.MAC, MacCommand.ADDR_SET, ...OTHER_ADDRESS);
      await device.reset();
      assert.equal([...device.config.subarray(0, 6)], DEFAULT_ADDRESS, 'a reset does');
    } finally {
      await device.close();
      await third.stop();
    }
  }));

test('virtio 1.2 §5.1.6.5.4: the device asks for an announcement, and the guest says that it was made', () =>
  withGuest(async (guest) => {
    const { device } = guest;
    assert.not(device.announce(), 'not before features are accepted');
    await guest.start();
    assert.ok(device.announce());
    assert.equal(
      guest.events.map(({ type }) => type),
      ['config-changed'],
    );
    assert.is(device.config[6], NetStatus.LINK_UP | NetStatus.ANNOUNCE);
    await guest.command(ControlClass.ANNOUNCE, AnnounceCommand.ACK);
    assert.is(device.config[6], NetStatus.LINK_UP);
    await device.reset();
    await device.setFeatures(device.offered.without(Feature.GUEST_ANNOUNCE, Feature.RING_PACKED));
    assert.not(device.announce(), 'not without the feature');
  }));

test.run();
