/**
 * One end of a vhost-user connection for tests, byte by byte: nothing in here comes from the tables under test.
 *
 * Numbers are written out from the protocol's document, so that a wrong table does not agree with itself.
 */

import { readdirSync, readFileSync } from 'node:fs';
import { setTimeout as pause, setImmediate as turn } from 'node:timers/promises';
import * as assert from 'uvu/assert';
import { native } from '../../native/index.js';
import { PATIENCE_MS, until } from './until.js';

export const VERSION = 1;
export const REPLY = 4;
export const NEED_REPLY = 8;

/** Request numbers that tests use. */
export const Id = {
  GET_FEATURES: 1,
  SET_FEATURES: 2,
  SET_OWNER: 3,
  RESET_OWNER: 4,
  SET_MEM_TABLE: 5,
  SET_LOG_BASE: 6,
  SET_LOG_FD: 7,
  SET_VRING_NUM: 8,
  SET_VRING_ADDR: 9,
  SET_VRING_BASE: 10,
  GET_VRING_BASE: 11,
  SET_VRING_KICK: 12,
  SET_VRING_CALL: 13,
  SET_VRING_ERR: 14,
  GET_PROTOCOL_FEATURES: 15,
  SET_PROTOCOL_FEATURES: 16,
  GET_QUEUE_NUM: 17,
  SET_VRING_ENABLE: 18,
  SEND_RARP: 19,
  NET_SET_MTU: 20,
  SET_BACKEND_REQ_FD: 21,
  IOTLB_MSG: 22,
  SET_VRING_ENDIAN: 23,
  GET_CONFIG: 24,
  SET_CONFIG: 25,
  GET_INFLIGHT_FD: 31,
  SET_INFLIGHT_FD: 32,
  RESET_DEVICE: 34,
  VRING_KICK: 35,
  GET_MAX_MEM_SLOTS: 36,
  ADD_MEM_REG: 37,
  REM_MEM_REG: 38,
  SET_STATUS: 39,
  GET_STATUS: 40,
  GET_SHARED_OBJECT: 41,
} as const;

/** A message as it stands on the wire; `fds` are the receiver's to close. */
export interface RawMessage {
  readonly request: number;
  readonly flags: number;
  readonly payload: Buffer;
  readonly fds: number[];
}

export interface RawRegion {
  readonly guest: bigint;
  readonly bytes: bigint;
  readonly user: bigint;
  readonly offset?: bigint;
}

export const u32s = (...values: readonly number[]): Buffer => {
  const buffer = Buffer.alloc(values.length * 4);
  values.forEach((value, index) => {
    buffer.writeUInt32LE(value >>> 0, index * 4);
  });
  return buffer;
};
export const u64s = (...values: readonly bigint[]): Buffer => {
  const buffer = Buffer.alloc(values.length * 8);
  values.forEach((value, index) => {
    buffer.writeBigUInt64LE(BigInt.asUintN(64, value), index * 8);
  });
  return buffer;
};
export const header = (request: number, flags: number, size: number): Buffer => u32s(request, flags, size);
export const message = (request: number, payload: Buffer = Buffer.alloc(0), flags = VERSION): Buffer =>
  Buffer.concat([header(request, flags, payload.length), payload]);
export const regionBytes = (region: RawRegion): Buffer =>
  u64s(region.guest, region.bytes, region.user, region.offset ?? 0n);
export const memoryTable = (regions: readonly RawRegion[], count = regions.length): Buffer =>
  Buffer.concat([u32s(count, 0), ...regions.map(regionBytes)]);
export const vringAddr = (index: number, desc: bigint, avail: bigint, used: bigint, flags = 0): Buffer =>
  Buffer.concat([u32s(index, flags), u64s(desc, used, avail, 0n)]);

/** Descriptors that this process holds. */
export const countFds = (): number => readdirSync('/proc/self/fd').length;

/** Mappings of files that this process has, memory files among them; the heap's own come and go. */
export const countMappings = (): number =>
  readFileSync('/proc/self/maps', 'utf8')
    .split('\n')
    .filter((line) => line.includes('/')).length;

/** Runs `body` and asserts that as many descriptors are open after it as before. */
export async function assertNoFdLeak(body: () => Promise<void>): Promise<void> {
  const before = countFds();
  await body();
  await until(() => countFds() <= before, `the descriptors to be back to ${before}, they are ${countFds()}`);
  assert.is(countFds(), before, 'descriptors');
}

export class RawPeer {
  readonly fd: number;
  #isOpen = true;

  /** Takes over a connected socket. */
  constructor(fd: number) {
    this.fd = fd;
  }

  static connect(path: string): RawPeer {
    return new RawPeer(native.connectUnix(path));
  }

  /** Sends bytes as they are, all of them, `fds` with the first. */
  async sendBytes(bytes: Uint8Array, fds: readonly number[] = []): Promise<void> {
    for (let sent = 0; sent < bytes.length; ) {
      const taken = native.send(this.fd, bytes.subarray(sent), sent === 0 ? fds : []);
      sent += taken;
      if (taken === 0) await pause(1);
    }
  }

  send(request: number, payload?: Buffer, options: { flags?: number; fds?: readonly number[] } = {}): Promise<void> {
    return this.sendBytes(message(request, payload, options.flags ?? VERSION), options.fds);
  }

  /** The next message, or undefined at the end of the stream. */
  async receive(timeoutMs = PATIENCE_MS): Promise<RawMessage | undefined> {
    const fds: number[] = [];
    const head = await this.#fill(12, fds, timeoutMs);
    if (head === undefined) return undefined;
    const payload = await this.#fill(head.readUInt32LE(8), fds, timeoutMs);
    assert.ok(payload !== undefined, 'the stream ended inside a message');
    return { request: head.readUInt32LE(0), flags: head.readUInt32LE(4), payload, fds };
  }

  /** The next message; it must be `request` with exactly these flags, and `fds` descriptors. */
  async expect(request: number, flags: number, fds = 0): Promise<RawMessage> {
    const received = await this.receive();
    assert.ok(received !== undefined, `the stream ended where request ${request} should come`);
    assert.is(received.request, request, 'request');
    assert.is(received.flags, flags, 'flags');
    assert.is(received.fds.length, fds, 'descriptors');
    return received;
  }

  /** Sends a request and takes its reply. */
  async ask(request: number, payload?: Buffer, flags = VERSION, fds: readonly number[] = []): Promise<Buffer> {
    await this.send(request, payload, { flags, fds });
    return (await this.expect(request, VERSION | REPLY)).payload;
  }

  async askU64(request: number, payload?: Buffer): Promise<bigint> {
    return (await this.ask(request, payload)).readBigUInt64LE(0);
  }

  /** Sends a request with NEED_REPLY; resolves to whether it was accepted. */
  async isAccepted(request: number, payload?: Buffer, fds: readonly number[] = []): Promise<boolean> {
    const answer = await this.ask(request, payload, VERSION | NEED_REPLY, fds);
    assert.is(answer.length, 8, 'an acknowledgement is a u64');
    return answer.readBigUInt64LE(0) === 0n;
  }

  /** Fails unless the other end closes the connection without another message. */
  async expectClosed(timeoutMs = PATIENCE_MS): Promise<void> {
    const received = await this.receive(timeoutMs);
    assert.is(received, undefined, 'the connection should be closed');
  }

  close(): void {
    if (!this.#isOpen) return;
    this.#isOpen = false;
    native.closeFd(this.fd);
  }

  async #fill(bytes: number, fds: number[], timeoutMs: number): Promise<Buffer | undefined> {
    const buffer = Buffer.alloc(bytes);
    const end = performance.now() + timeoutMs;
    for (let filled = 0, tries = 0; filled < bytes; ) {
      const received = this.#receive(buffer.subarray(filled));
      if (received === 'end') return undefined;
      if (received === undefined) {
        if (performance.now() > end) assert.unreachable(`no message within ${timeoutMs} ms`);
        // The other end is in this process, mostly: a few turns of the loop are enough.
        await (++tries < 100 ? turn() : pause(1));
        continue;
      }
      fds.push(...received.fds);
      filled += received.bytes;
    }
    return buffer;
  }

  #receive(into: Uint8Array): { bytes: number; fds: number[] } | undefined | 'end' {
    try {
      const received = native.receive(this.fd, into);
      return received?.bytes === 0 ? 'end' : received;
    } catch (error) {
      // What the other end did not read before it closed comes back as a reset.
      if ((error as { code?: string }).code === 'ECONNRESET') return 'end';
      throw error;
    }
  }
}
