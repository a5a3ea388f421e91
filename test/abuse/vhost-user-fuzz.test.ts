/**
 * Front-ends that say anything, in any order, with any descriptors, to the real device (row 31).
 *
 * Each connection is made by its number and the seed alone. What holds after every connection: nothing of it is left; what
 * holds after all: test/support/vhost-user-abuse.ts. `VIRTIO_PMD_SEED` chooses another seed, `VIRTIO_PMD_FULL=1` many more.
 */

import { closeSync, ftruncateSync, openSync } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as pause, setImmediate as turn } from 'node:timers/promises';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { native } from '../../native/index.js';
import { randomNumbers } from '../support/memory-threads.js';
import { until } from '../support/until.js';
import { type AbuseBench, endBystanders, withBystander } from '../support/vhost-user-abuse.js';
import { GUEST, MEMORY_BYTES, USER } from '../support/vhost-user-frontend.js';
import { EVERYTHING, goodRequests } from '../support/vhost-user-good.js';
import type { GuestFrontend } from '../support/vhost-user-guest.js';
import { countFds, countMappings, header, Id, memoryTable, u32s, u64s, vringAddr } from '../support/vhost-user-raw.js';

export const timeBoundSeconds = 300;
export const fullTimeBoundSeconds = 14_400;

const test = suite('abuse: vhost-user fuzz');
const isFull = process.env['VIRTIO_PMD_FULL'] === '1';
const SEED = Number(process.env['VIRTIO_PMD_SEED'] ?? 1);
const CONNECTIONS = isFull ? 20_000 : 80;
const MOST_DEEDS = 250;

type Random = (below: number) => number;

/** Numbers that have been somebody's undoing. */
const INTERESTING = [
  0n,
  1n,
  2n,
  255n,
  256n,
  4095n,
  4096n,
  65535n,
  65536n,
  0x7fff_ffffn,
  0xffff_ffffn,
  1n << 32n,
  1n << 40n,
  1n << 52n,
  1n << 63n,
  (1n << 64n) - 4096n,
  (1n << 64n) - 1n,
  GUEST,
  GUEST + 4096n,
  USER,
  USER + 0x4000n,
  USER + BigInt(MEMORY_BYTES),
] as const;

/** Descriptors of all sorts, which outlive the connections. */
interface Things {
  readonly fds: readonly number[];
  /** Memory of nobody. */
  readonly memory: number;
  /** A file that is cut off and made longer again. */
  readonly file: number;
}

/** One connection's worth of trouble. */
class Trouble {
  readonly #random: Random;
  readonly #front: GuestFrontend;
  readonly #things: Things;
  readonly #into = new Uint8Array(4096);
  #stream = Buffer.alloc(0);
  #answers = 0;

  constructor(random: Random, front: GuestFrontend, things: Things) {
    this.#random = random;
    this.#front = front;
    this.#things = things;
  }

  /** Sends one message, well-formed or not, or does something to the memory. */
  async act(): Promise<void> {
    const acts = [
      () => this.#good(),
      () => this.#good(),
      () => this.#spoilt(),
      () => this.#spoilt(),
      () => this.#spoilt(),
      () => this.#spoilt(),
      () => this.#plausible(),
      () => this.#plausible(),
      () => this.#plausible(),
      () => this.#scribble(),
      () => this.#scribble(),
      () => this.#packets(),
      () => this.#packets(),
      () => this.#rarely(),
    ] as const;
    await acts[this.#random(acts.length)]!();
  }

  /** Takes what came and closes the descriptors with it; false at the end of the stream. */
  drain(): boolean {
    for (;;) {
      try {
        const received = native.receive(this.#front.fd, this.#into);
        if (received === undefined) return true;
        for (const fd of received.fds) native.closeFd(fd);
        if (received.bytes === 0) return false;
        this.#read(this.#into.subarray(0, received.bytes));
      } catch {
        return false;
      }
    }
  }

  /** Has the back-end come as far as everything that was sent; or to the end of the connection. */
  async settle(): Promise<void> {
    for (let answers = this.#answers, turns = 0; this.#answers === answers && this.drain(); turns++) {
      // A message that was begun and not ended takes some of these for its own.
      if (turns % 300 === 0) await this.#front.send(Id.GET_FEATURES);
      await (turns < 100 ? turn() : pause(1));
    }
  }

  /** Counts the answers to GET_FEATURES. */
  #read(bytes: Uint8Array): void {
    this.#stream = Buffer.concat([this.#stream, bytes]);
    while (this.#stream.length >= 12 && this.#stream.length >= 12 + this.#stream.readUInt32LE(8)) {
      if (this.#stream.readUInt32LE(0) === Id.GET_FEATURES) this.#answers++;
      this.#stream = this.#stream.subarray(12 + this.#stream.readUInt32LE(8));
    }
  }

  #pick<T>(items: readonly T[]): T {
    return items[this.#random(items.length)]!;
  }

  /** As a request should come, with what it should have. */
  #good(): Promise<void> {
    const { request, payload, fds, needs, refusal } = this.#pick(goodRequests);
    // The same for one that may not be asked here.
    if (refusal === 'close' && needs !== 0n && this.#random(4) > 0) return this.#packets();
    return this.#send(request, payload, fds === 0 ? [] : [this.#anyFd()]);
  }

  /** A good one with bytes, length, flags or descriptors changed. */
  #spoilt(): Promise<void> {
    const { request, payload, fds, refusal } = this.#pick(goodRequests);
    // Those whose refusal ends the connection are left to the others, mostly.
    if (refusal === 'close' && this.#random(10) > 0) return this.#plausible();
    const bytes = Buffer.from(payload);
    for (let changes = this.#random(4); changes > 0 && bytes.length > 0; changes--) this.#change(bytes);
    const length = this.#random(6) === 0 ? this.#random(bytes.length + 20) : bytes.length;
    const spoilt = Buffer.concat([bytes, Buffer.alloc(20)]).subarray(0, length);
    const count = this.#random(5) === 0 ? this.#random(9) : fds;
    return this.#send(
      this.#random(20) === 0 ? this.#random(50) : request,
      spoilt,
      Array.from({ length: count }, () => this.#anyFd()),
    );
  }

  #change(bytes: Buffer): void {
    const kind = this.#random(3);
    const value = this.#pick(INTERESTING);
    if (kind === 0 && bytes.length >= 8) bytes.writeBigUInt64LE(value, 8 * this.#random(bytes.length >> 3));
    else if (kind === 1 && bytes.length >= 4) {
      bytes.writeUInt32LE(Number(value & 0xffff_ffffn), 4 * this.#random(bytes.length >> 2));
    } else bytes[this.#random(bytes.length)] = this.#random(256);
  }

  /** What gets far: rings and memory as they might be. */
  #plausible(): Promise<void> {
    const random = this.#random;
    const ring = random(5);
    const near = (base: bigint): bigint => base + BigInt(16 * random(MEMORY_BYTES / 16));
    const region = { ...this.#front.region(), guest: random(3) === 0 ? near(GUEST) & ~4095n : GUEST };
    const more = { guest: near(GUEST) + (1n << 36n), bytes: 65536n, user: near(USER) + (1n << 36n) };
    const sends: readonly (() => Promise<void>)[] = [
      () => this.#send(Id.SET_FEATURES, u64s(this.#features()), []),
      () => this.#send(Id.SET_PROTOCOL_FEATURES, u64s(random(20) === 0 ? this.#features() : EVERYTHING), []),
      () => this.#send(Id.SET_MEM_TABLE, memoryTable([region]), [this.#front.memory]),
      () => this.#send(Id.SET_MEM_TABLE, memoryTable([region, more]), [this.#front.memory, this.#things.file]),
      () => this.#send(Id.SET_VRING_NUM, u32s(ring, 1 << random(12)), []),
      () => this.#send(Id.SET_VRING_BASE, u32s(ring, random(0x1_0000)), []),
      () => this.#send(Id.SET_VRING_ADDR, vringAddr(ring, near(USER), near(USER), near(USER), random(2)), []),
      () => this.#front.setAddresses(ring, USER).then(() => undefined),
      () => this.#send(Id.SET_VRING_KICK, u64s(BigInt(ring)), [this.#anyFd()]),
      () => this.#send(Id.SET_VRING_KICK, u64s(BigInt(ring) | 0x100n), []),
      () => this.#send(Id.SET_VRING_CALL, u64s(BigInt(ring)), [this.#anyFd()]),
      () => this.#send(Id.SET_VRING_ENABLE, u32s(ring, random(2)), []),
      () => this.#send(Id.GET_VRING_BASE, u32s(random(40) === 0 ? ring : ring & 1, 0), []),
    ];
    // Addresses as they should be, without waiting for an answer.
    const good = (): Promise<void> => {
      const at = USER + BigInt(ring) * 0x10000n;
      return this.#send(Id.SET_VRING_ADDR, vringAddr(ring, at, at + 0x4000n, at + 0x8000n), []);
    };
    const chosen = random(sends.length);
    return chosen === 7 ? good() : sends[chosen]!();
  }

  /** Random words where rings, tables and packets are. */
  async #scribble(): Promise<void> {
    for (let words = this.#random(200); words > 0; words--) {
      const value = this.#random(2) === 0 ? this.#random(64) : this.#random(0xffff_ffff);
      this.#front.write(4 * this.#random(0x6_0000 / 4), u32s(value));
    }
  }

  async #packets(): Promise<void> {
    this.#front.post(1 + this.#random(32));
    await turn();
  }

  /** What need not happen often: time passing, a file that shrinks, a header that is none. */
  async #rarely(): Promise<void> {
    const rare = [
      () => new Promise<void>((resolve) => setTimeout(resolve, this.#random(5))),
      () => new Promise<void>((resolve) => setTimeout(resolve, this.#random(5))),
      async () => ftruncateSync(this.#things.file, this.#random(2) === 0 ? 0 : MEMORY_BYTES),
      () => this.#front.sendBytes(header(this.#random(64), this.#random(16), this.#random(6000))),
      () => this.#front.sendBytes(Buffer.from(Array.from({ length: this.#random(64) }, () => this.#random(256)))),
    ] as const;
    // The last two end the connection, mostly: the stream makes no sense from there on.
    await rare[this.#random(this.#random(4) === 0 ? rare.length : 3)]!();
  }

  #features(): bigint {
    let bits = 0x1_6000_8000n;
    for (let flips = this.#random(4); flips > 0; flips--) bits ^= 1n << BigInt(this.#random(40));
    return bits;
  }

  /** Not the guest's own memory: what is between its canaries is shared by tables that are right, and nothing else is. */
  #anyFd(): number {
    return this.#random(3) === 0 ? this.#things.memory : this.#pick(this.#things.fds);
  }

  #send(request: number, payload: Buffer, fds: readonly number[]): Promise<void> {
    // Without asking for an acknowledgement the first refusal is the end of the connection.
    const flags = this.#random(200) === 0 ? this.#random(32) : this.#random(100) === 0 ? 1 : 9;
    return this.#front.send(request, payload, { flags, fds });
  }
}

/** One connection from its beginning to its end; resolves to how many messages or deeds it had. */
async function connection(bench: AbuseBench, number: number, things: Things): Promise<number> {
  const random = randomNumbers(SEED * 1_000_003 + number);
  const front = await bench.guest({ queuePairs: 1 + random(2), iommu: random(4) === 0 });
  const trouble = new Trouble(random, front, things);
  let deeds = 0;
  try {
    // Most begin as they should, so that what follows meets something that runs.
    if (random(4) > 0) {
      await front.start(EVERYTHING);
      // Before this nothing moves, where the status is told of.
      if (random(8) > 0) await front.do(Id.SET_STATUS, u64s(15n));
      for (const index of [0, 1]) await front.enable(index);
    }
    const most = 1 + random(MOST_DEEDS);
    while (deeds < most && trouble.drain()) {
      await trouble.act();
      deeds++;
      if (random(6) === 0) await trouble.settle();
      else if (random(2) === 0) await turn();
    }
    // Others go in the middle of it.
    if (random(3) > 0) await trouble.settle();
  } catch (error) {
    // The back-end may end the connection at any time.
    const { code } = error as { code?: string };
    if (code !== 'EPIPE' && code !== 'ECONNRESET') throw error;
  } finally {
    trouble.drain();
    front.checkCanaries();
    front.close();
  }
  return deeds;
}

test(`row 31: random messages with random descriptors, seed ${SEED}`, async () => {
  const folder = await mkdtemp(join(tmpdir(), 'vhost-user-fuzz-'));
  const file = openSync(join(folder, 'memory'), 'w+');
  ftruncateSync(file, MEMORY_BYTES);
  const memory = native.createMemory('scratch', MEMORY_BYTES, 0);
  const [left, right] = native.socketPair();
  const others = [openSync('/dev/zero', 'r+'), openSync('/dev/null', 'r'), openSync('/proc/self/maps', 'r')];
  const fds = [file, memory, left, right, native.createEventFd(0), native.createEventFd(1), ...others];
  let deeds = 0;
  try {
    await withBystander(async (bench) => {
      const before = [countFds(), countMappings()];
      for (let number = 0; number < CONNECTIONS; number++) {
        const what = `seed ${SEED}, connection ${number}`;
        try {
          deeds += await connection(bench, number, { fds, file, memory });
          await until(() => bench.server.connections === 1, 'the connection to end');
          await until(() => countFds() <= before[0]!, `descriptors, ${before[0]} before and ${countFds()} now`);
          await until(() => countMappings() <= before[1]!, `mappings, ${before[1]} before and ${countMappings()} now`);
        } catch (error) {
          (error as Error).message = `${what}: ${(error as Error).message}`;
          throw error;
        }
      }
      const outcomes = new Set(bench.errors().map(({ outcome }) => outcome));
      for (const outcome of ['CLOSE', 'NACK', 'BROKEN'] as const) assert.ok(outcomes.has(outcome), `some ${outcome}`);
    });
  } finally {
    for (const fd of fds) closeSync(fd);
    await rm(folder, { recursive: true });
  }
  assert.ok(deeds > CONNECTIONS * 5, `${deeds} in ${CONNECTIONS} connections`);
});

test.after(endBystanders);
test.run();
