/** A scripted front-end, strict to the protocol, and a server to try it on. */

import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import * as assert from 'uvu/assert';
import type { ServerEvent } from '../../driver/backend/vhost-user-events.js';
import { VhostUserServer, type VhostUserServerOptions } from '../../driver/backend/vhost-user-server.js';
import { native } from '../../native/index.js';
import { until } from './until.js';
import { FakeDevice, type FakeDeviceOptions } from './vhost-user-device.js';
import {
  assertNoFdLeak,
  Id,
  memoryTable,
  NEED_REPLY,
  RawPeer,
  type RawRegion,
  u32s,
  u64s,
  VERSION,
  vringAddr,
} from './vhost-user-raw.js';

/** Feature bits, as the document numbers them. */
export const MRG_RXBUF = 1n << 15n;
export const MQ = 1n << 22n;
export const EVENT_IDX = 1n << 29n;
export const BIT_30 = 1n << 30n;
export const VERSION_1 = 1n << 32n;

export const LOG_ALL = 1n << 26n;
export const ACCESS_PLATFORM = 1n << 33n;

/** Protocol feature bits. */
export const LOG_SHMFD = 1n << 1n;
export const RARP = 1n << 2n;
export const BACKEND_REQ = 1n << 5n;
export const INFLIGHT = 1n << 12n;
export const RESET = 1n << 13n;
export const IN_BAND = 1n << 14n;
export const PROTOCOL_MQ = 1n << 0n;
export const REPLY_ACK = 1n << 3n;
export const CONFIG = 1n << 9n;
export const MEM_SLOTS = 1n << 15n;
export const STATUS = 1n << 16n;

export const GUEST = 0x1_0000_0000n;
export const USER = 0x7f00_0000_0000n;
export const MEMORY_BYTES = 1 << 20;

/** Where the parts of ring `index` are, as the front-end counts. */
export const partsOf = (index: number, start = USER): { desc: bigint; avail: bigint; used: bigint } => {
  const base = start + BigInt(index) * 0x10000n;
  return { desc: base, avail: base + 0x4000n, used: base + 0x8000n };
};

export class FakeFrontend extends RawPeer {
  readonly memory = native.createMemory('guest', MEMORY_BYTES, 0);
  readonly kicks = new Map<number, number>();
  readonly calls = new Map<number, number>();
  #hasAck = false;
  #isDone = false;

  static override connect(path: string): FakeFrontend {
    return new FakeFrontend(native.connectUnix(path));
  }

  /** Sends a request without a reply of its own, and waits until it is accepted where REPLY_ACK allows. */
  async do(request: number, payload?: Buffer, fds: readonly number[] = []): Promise<void> {
    if (this.#hasAck) assert.ok(await this.isAccepted(request, payload, fds), `request ${request} accepted`);
    else await this.send(request, payload, { fds });
  }

  /** The beginning of every session; `protocol` 0 leaves protocol features alone. */
  async open(protocol = PROTOCOL_MQ | REPLY_ACK | MEM_SLOTS): Promise<void> {
    await this.send(Id.SET_OWNER);
    const features = await this.askU64(Id.GET_FEATURES);
    assert.ok((features & BIT_30) !== 0n, 'the back-end offers bit 30');
    if (protocol === 0n) return;
    const offered = await this.askU64(Id.GET_PROTOCOL_FEATURES);
    assert.is(offered & protocol, protocol, 'the protocol features that the test needs are offered');
    await this.send(Id.SET_PROTOCOL_FEATURES, u64s(protocol));
    this.#hasAck = (protocol & REPLY_ACK) !== 0n;
  }

  region(): RawRegion {
    return { guest: GUEST, bytes: BigInt(MEMORY_BYTES), user: USER };
  }

  share(): Promise<void> {
    return this.do(Id.SET_MEM_TABLE, memoryTable([this.region()]), [this.memory]);
  }

  async setCall(index: number): Promise<void> {
    await this.do(Id.SET_VRING_CALL, u64s(BigInt(index)), [this.#event(this.calls, index)]);
  }
  async setKick(index: number): Promise<void> {
    await this.do(Id.SET_VRING_KICK, u64s(BigInt(index)), [this.#event(this.kicks, index)]);
  }
  async setAddresses(index: number, start = USER): Promise<void> {
    const { desc, avail, used } = partsOf(index, start);
    await this.do(Id.SET_VRING_ADDR, vringAddr(index, desc, avail, used));
  }

  /** Everything about a ring but its kick. */
  async prepareRing(index: number, size = 256, base = 0): Promise<void> {
    await this.setCall(index);
    await this.do(Id.SET_VRING_NUM, u32s(index, size));
    await this.do(Id.SET_VRING_BASE, u32s(index, base));
    await this.setAddresses(index);
  }

  async startRing(index: number, size = 256, base = 0): Promise<void> {
    await this.prepareRing(index, size, base);
    await this.setKick(index);
  }

  enable(index: number, isEnabled = true): Promise<void> {
    return this.do(Id.SET_VRING_ENABLE, u32s(index, isEnabled ? 1 : 0));
  }

  async stopRing(index: number): Promise<number> {
    return (await this.ask(Id.GET_VRING_BASE, u32s(index, 0))).readUInt32LE(4);
  }

  /** A first pair of rings, running and enabled. */
  async bringUp(): Promise<void> {
    await this.open();
    await this.do(Id.SET_FEATURES, u64s(VERSION_1 | MRG_RXBUF | BIT_30));
    await this.share();
    for (const index of [0, 1]) await this.startRing(index);
    for (const index of [0, 1]) await this.enable(index);
  }

  /** Whether a request is refused with an acknowledgement, the connection going on. */
  async isRefused(request: number, payload?: Buffer, fds: readonly number[] = []): Promise<boolean> {
    const answer = await this.ask(request, payload, VERSION | NEED_REPLY, fds);
    assert.is(answer.length, 8);
    return answer.readBigUInt64LE(0) !== 0n;
  }

  override close(): void {
    super.close();
    if (this.#isDone) return;
    this.#isDone = true;
    for (const fd of [this.memory, ...this.kicks.values(), ...this.calls.values()]) native.closeFd(fd);
  }

  #event(table: Map<number, number>, index: number): number {
    const fd = table.get(index) ?? native.createEventFd(0);
    table.set(index, fd);
    return fd;
  }
}

export interface ServerBench {
  readonly path: string;
  readonly server: VhostUserServer;
  readonly devices: FakeDevice[];
  readonly events: ServerEvent[];
  /** A new front-end and the device it gets. */
  connect(): Promise<{ frontend: FakeFrontend; device: FakeDevice }>;
  errors(): Extract<ServerEvent, { type: 'error' }>[];
}

export interface BenchOptions extends Partial<VhostUserServerOptions> {
  readonly device?: FakeDeviceOptions;
}

/** Runs `body` with a server on a socket of its own; afterwards nothing may be left open and no device misused. */
export function withServer(body: (bench: ServerBench) => Promise<void>, options: BenchOptions = {}): Promise<void> {
  return assertNoFdLeak(async () => {
    const folder = await mkdtemp(join(tmpdir(), 'vhost-user-'));
    const path = join(folder, 'socket');
    const devices: FakeDevice[] = [];
    const events: ServerEvent[] = [];
    const frontends: FakeFrontend[] = [];
    const { device: deviceOptions, ...serverOptions } = options;
    const server = await VhostUserServer.listen(path, {
      createDevice: () => {
        const device = new FakeDevice(deviceOptions);
        devices.push(device);
        return device;
      },
      onEvent: (event) => events.push(event),
      ...serverOptions,
    });
    try {
      await body({
        path,
        server,
        devices,
        events,
        connect: async () => {
          const count = devices.length;
          const frontend = FakeFrontend.connect(path);
          frontends.push(frontend);
          await until(() => devices.length > count, 'a device for the new connection');
          return { frontend, device: devices.at(-1)! };
        },
        errors: () => events.filter((event) => event.type === 'error'),
      });
    } finally {
      for (const frontend of frontends) frontend.close();
      await server.close();
      await rm(folder, { recursive: true });
    }
    assert.equal(
      devices.flatMap((device) => device.violations),
      [],
    );
    assert.ok(
      devices.every((device) => device.isClosed),
      'every device closed',
    );
  });
}
