/** NET_SET_MTU (vhost-user "Front-end message types"), and what an MTU does to packets (virtio 1.2 §5.1.4.1). */

import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { DeviceThread } from '../../driver/backend/device-thread.js';
import { NetDevice, type NetDeviceOptions } from '../../driver/backend/net-device.js';
import { echoPort, switchPort } from '../../driver/backend/ports/built-in.js';
import { VhostUserServer } from '../../driver/backend/vhost-user-server.js';
import { Feature, FeatureSet } from '../../driver/spec/features.js';
import { native } from '../../native/index.js';
import { PATIENCE_MS, until } from '../support/until.js';
import {
  BIT_30,
  CONFIG,
  FakeFrontend,
  GUEST,
  MEMORY_BYTES,
  REPLY_ACK,
  RESET,
  VERSION_1,
  withServer,
} from '../support/vhost-user-frontend.js';
import { HandRing } from '../support/vhost-user-hand-ring.js';
import { assertNoFdLeak, Id, u32s, u64s } from '../support/vhost-user-raw.js';

const test = suite('vhost-user: the MTU');

/** Protocol feature bit 4, and the feature bit of the same name. */
const PROTOCOL_MTU = 1n << 4n;
const FEATURE_MTU = 1n << 3n;
/** Where the field is (virtio 1.2 §5.1.4). */
const MTU_AT = 10;
const HEADER = 12;
const BUFFERS = 0x8_0000;
const PACKETS = 0xc_0000;

/** The field as GET_CONFIG answers it. */
async function configured(frontend: FakeFrontend): Promise<number> {
  const answer = await frontend.ask(Id.GET_CONFIG, Buffer.concat([u32s(MTU_AT, 2, 0), Buffer.alloc(2)]));
  return answer.readUInt16LE(12);
}

const withoutMtu = { device: { offered: FeatureSet.of(Feature.VERSION_1, Feature.MRG_RXBUF) } };

test('a device without an MTU of its own: the message is served all the same, and the field has what it says', () =>
  withServer(async ({ connect, server }) => {
    const { frontend, device } = await connect();
    await frontend.open(REPLY_ACK | CONFIG | PROTOCOL_MTU | RESET);
    assert.is((await frontend.askU64(Id.GET_FEATURES)) & FEATURE_MTU, 0n, 'the bit promises a value');
    for (const mtu of [68n, 65535n, 1400n]) await frontend.do(Id.NET_SET_MTU, u64s(mtu));
    assert.equal(device.takeCalls(), ['setMtu 68', 'setMtu 65535', 'setMtu 1400']);
    assert.is(await configured(frontend), 1400);
    for (const mtu of [67n, 65536n, (1n << 32n) + 1400n]) {
      assert.ok(await frontend.isRefused(Id.NET_SET_MTU, u64s(mtu)), `${mtu}`);
    }
    assert.equal(device.takeCalls(), []);
    assert.is(server.describe(1)?.mtu, 1400);
    await frontend.do(Id.RESET_DEVICE);
    assert.is(server.describe(1)?.mtu, undefined, 'a reset device has the MTU that it was made with');
  }, withoutMtu));

test('without the protocol feature the message is refused', () =>
  withServer(async ({ connect }) => {
    const { frontend, device } = await connect();
    await frontend.open(REPLY_ACK);
    assert.ok(await frontend.isRefused(Id.NET_SET_MTU, u64s(1500n)));
    assert.not(device.calls.some((call) => call.startsWith('setMtu')));
  }, withoutMtu));

test('spec-E15: while a ring runs the same MTU may be said again, another one may not', () =>
  withServer(async ({ connect }) => {
    const { frontend } = await connect();
    await frontend.open(REPLY_ACK | PROTOCOL_MTU);
    await frontend.do(Id.SET_FEATURES, u64s(VERSION_1 | BIT_30));
    await frontend.share();
    await frontend.do(Id.NET_SET_MTU, u64s(1500n));
    await frontend.startRing(0);
    await frontend.do(Id.NET_SET_MTU, u64s(1500n));
    assert.ok(await frontend.isRefused(Id.NET_SET_MTU, u64s(9000n)));
    await frontend.stopRing(0);
    await frontend.do(Id.NET_SET_MTU, u64s(9000n));
  }, withoutMtu));

/** An Ethernet packet of so many bytes, tagged or not. */
function packet(bytes: number, isTagged: boolean): Buffer {
  const made = Buffer.alloc(bytes, bytes & 0xff);
  made.set([2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, ...(isTagged ? [0x81, 0x00, 0x00, 0x05] : []), 0x88, 0xb5]);
  return made;
}

/** Sends packets of these lengths to the real device, which sends back what it may; returns what came, and the drops. */
async function exchange(
  frontend: FakeFrontend,
  device: NetDevice,
  sent: readonly (readonly [bytes: number, isTagged: boolean])[],
): Promise<{ readonly arrived: number[]; readonly aboveMtu: number }> {
  const { memory, unmap } = mapped(frontend);
  try {
    const [receive, transmit] = [0, 1].map((ring) => new HandRing(new DataView(memory), ring, GUEST)) as [
      HandRing,
      HandRing,
    ];
    for (const index of [0, 1]) await frontend.startRing(index);
    for (const index of [0, 1]) await frontend.enable(index);
    for (let buffer = 0; buffer < 16; buffer++) receive.post(BUFFERS + buffer * 4096, 4096, true);
    for (const [index, [bytes, isTagged]] of sent.entries()) {
      const at = PACKETS + index * 4096;
      new Uint8Array(memory, at, HEADER).fill(0);
      new Uint8Array(memory, at + HEADER, bytes).set(packet(bytes, isTagged));
      transmit.post(at, HEADER + bytes, false);
    }
    const count = (): number => receive.used + device.statistics(0).drops.aboveMtu;
    await until(() => transmit.used === sent.length && count() === sent.length, 'all packets', PATIENCE_MS);
    const arrived = Array.from({ length: receive.used }, (_, entry) => receive.usedBytes(entry) - HEADER);
    return { arrived, aboveMtu: device.statistics(0).drops.aboveMtu };
  } finally {
    unmap();
  }
}

function mapped(frontend: FakeFrontend): { readonly memory: ArrayBuffer; unmap(): void } {
  const memory = native.mapShared(frontend.memory, 0, MEMORY_BYTES, 0);
  return { memory, unmap: () => native.unmapShared(memory) };
}

/** Runs `body` with a front-end of a real device that sends everything back. */
function withDevice(
  options: Omit<NetDeviceOptions, 'port'>,
  body: (frontend: FakeFrontend, device: NetDevice) => Promise<void>,
): Promise<void> {
  return assertNoFdLeak(async () => {
    const folder = await mkdtemp(join(tmpdir(), 'vhost-user-mtu-'));
    const thread = await DeviceThread.start({ poolSize: 1024 });
    let device: NetDevice | undefined;
    const server = await VhostUserServer.listen(join(folder, 'socket'), {
      createDevice: () => {
        device = new NetDevice(thread, { port: echoPort(), ...options });
        return device;
      },
    });
    try {
      const frontend = FakeFrontend.connect(join(folder, 'socket'));
      try {
        await frontend.open(REPLY_ACK | CONFIG | PROTOCOL_MTU);
        await body(frontend, device!);
      } finally {
        frontend.close();
      }
    } finally {
      await server.close();
      await thread.stop();
      await rm(folder, { recursive: true });
    }
  });
}

/** Around an MTU of 1500: the header is no part of it, and neither is a tag. */
const AROUND = [
  [1514, false],
  [1515, false],
  [1518, true],
  [1519, true],
  [1518, false],
  [60, false],
] as const;

test('spec-E15: no packet above the MTU that the front-end has set goes to the guest; each is counted', () =>
  withDevice({}, async (frontend, device) => {
    await frontend.do(Id.SET_FEATURES, u64s(VERSION_1 | BIT_30));
    await frontend.do(Id.NET_SET_MTU, u64s(1500n));
    assert.is(await configured(frontend), 1500);
    await frontend.share();
    assert.equal(await exchange(frontend, device, AROUND), { arrived: [1514, 1518, 60], aboveMtu: 3 });
  }));

test('spec-E15: an MTU of the device itself counts where the bit was accepted, and bounds what the front-end may set', () =>
  withDevice({ mtu: 1500 }, async (frontend, device) => {
    assert.is((await frontend.askU64(Id.GET_FEATURES)) & FEATURE_MTU, FEATURE_MTU);
    assert.is(await configured(frontend), 1500);
    assert.ok(await frontend.isRefused(Id.NET_SET_MTU, u64s(1501n)), 'more than the device has');
    await frontend.do(Id.SET_FEATURES, u64s(VERSION_1 | BIT_30 | FEATURE_MTU));
    assert.is(await configured(frontend), 1500);
    await frontend.share();
    assert.equal(await exchange(frontend, device, AROUND), { arrived: [1514, 1518, 60], aboveMtu: 3 });
  }));

/** A guest of a switch, its rings running. */
class SwitchGuest {
  readonly receive: HandRing;
  readonly transmit: HandRing;
  readonly #memory: ArrayBuffer;
  readonly #number: number;
  #sent = 0;

  constructor(memory: ArrayBuffer, number: number) {
    this.#memory = memory;
    this.#number = number;
    this.receive = new HandRing(new DataView(memory), 0, GUEST);
    this.transmit = new HandRing(new DataView(memory), 1, GUEST);
    for (let buffer = 0; buffer < 32; buffer++) this.receive.post(BUFFERS + buffer * 4096, 4096, true);
  }

  /** Sends a packet of so many bytes to a guest, or with a group's address to all. */
  send(to: number | 'group', bytes: number, isTagged: boolean): void {
    const at = PACKETS + (this.#sent++ % 32) * 4096;
    const made = packet(bytes, isTagged);
    made.set([...(to === 'group' ? [1, 0, 0x5e, 0, 0, 9] : [2, 0, 0, 0, 1, to]), 2, 0, 0, 0, 1, this.#number]);
    new Uint8Array(this.#memory, at, HEADER).fill(0);
    new Uint8Array(this.#memory, at + HEADER, bytes).set(made);
    this.transmit.post(at, HEADER + bytes, false);
  }
}

test('the smaller one of the front-end counts, whether it comes before the features or after them', () =>
  withDevice({ mtu: 9000 }, async (frontend, device) => {
    await frontend.do(Id.NET_SET_MTU, u64s(1500n));
    await frontend.do(Id.SET_FEATURES, u64s(VERSION_1 | BIT_30 | FEATURE_MTU));
    assert.is(await configured(frontend), 1500);
    await frontend.share();
    assert.equal(await exchange(frontend, device, AROUND), { arrived: [1514, 1518, 60], aboveMtu: 3 });
  }));

test('guests of a switch, whose packets go from one to the other without a stop: the MTU of the receiver counts', () =>
  assertNoFdLeak(async () => {
    const folder = await mkdtemp(join(tmpdir(), 'vhost-user-mtu-'));
    const thread = await DeviceThread.start({ poolSize: 1024 });
    const devices: NetDevice[] = [];
    const server = await VhostUserServer.listen(join(folder, 'socket'), {
      createDevice: () => {
        devices.push(new NetDevice(thread, { port: switchPort() }));
        return devices.at(-1)!;
      },
    });
    const ends: (() => void)[] = [];
    try {
      const guests: SwitchGuest[] = [];
      for (const number of [0, 1]) {
        const frontend = FakeFrontend.connect(join(folder, 'socket'));
        ends.push(() => frontend.close());
        await frontend.open(REPLY_ACK | CONFIG | PROTOCOL_MTU);
        await frontend.do(Id.SET_FEATURES, u64s(VERSION_1 | BIT_30));
        await frontend.share();
        if (number === 1) await frontend.do(Id.NET_SET_MTU, u64s(1500n));
        for (const index of [0, 1]) await frontend.startRing(index);
        for (const index of [0, 1]) await frontend.enable(index);
        const { memory, unmap } = mapped(frontend);
        ends.push(unmap);
        guests.push(new SwitchGuest(memory, number));
      }
      const [sender, receiver] = guests as [SwitchGuest, SwitchGuest];
      // So that the switch knows where it is.
      receiver.send(0, 60, false);
      await until(() => sender.receive.used === 1, 'the first packet', PATIENCE_MS);
      for (const [bytes, isTagged] of AROUND) sender.send(1, bytes, isTagged);
      sender.send('group', 100, false);
      const dropped = (): number => devices[1]!.statistics(0).drops.aboveMtu;
      await until(() => receiver.receive.used + dropped() >= AROUND.length + 1, 'all packets', PATIENCE_MS);
      const arrived = Array.from({ length: receiver.receive.used }, (_, at) => receiver.receive.usedBytes(at) - HEADER);
      assert.equal(arrived, [1514, 1518, 60, 100]);
      assert.is(dropped(), 3);
      // The other one has no MTU.
      for (const [bytes, isTagged] of AROUND) receiver.send(0, bytes, isTagged);
      await until(() => sender.receive.used === 1 + AROUND.length, 'packets of any length', PATIENCE_MS);
    } finally {
      for (const end of ends.reverse()) end();
      await server.close();
      await thread.stop();
      await rm(folder, { recursive: true });
    }
  }));

test('where nobody has agreed on an MTU, packets of any length pass', () =>
  withDevice({ mtu: 1500 }, async (frontend, device) => {
    await frontend.do(Id.SET_FEATURES, u64s(VERSION_1 | BIT_30));
    await frontend.share();
    const { arrived, aboveMtu } = await exchange(frontend, device, AROUND);
    assert.equal([arrived, aboveMtu], [AROUND.map(([bytes]) => bytes), 0]);
  }));

test.run();
