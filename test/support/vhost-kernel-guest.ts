/**
 * Runs inside a guest, by Node: what a port over the guest's own kernel does, a scenario after the other. How each ended is a
 * line of JSON.
 *
 *   node vhost-kernel-guest.js PACKETS BUSYBOX SCENARIO...
 *
 * The guest's kernel has an address on the tap; its end of the traffic is UDP sockets and ping.
 */

import { createSocket, type Socket } from 'node:dgram';
import { once } from 'node:events';
import { chmodSync, existsSync, readdirSync, readFileSync, readlinkSync } from 'node:fs';
import { setTimeout as delay } from 'node:timers/promises';
import * as assert from 'uvu/assert';

import { VirtioError } from '../../driver/errors.js';
import type { Port } from '../../driver/net/port.js';
import { type OpenPortOptions, openPort } from '../../driver/open.js';
import { native, PollEvent } from '../../native/index.js';
import { runCommand } from './commands.js';
import { datagram, Responder } from './vhost-kernel-responder.js';

const [packetsText = '', busybox = '', ...names] = process.argv.slice(2);
const PACKETS = Number(packetsText);

const KERNEL_END = '10.88.0.1';
const OUR_END = '10.88.0.2';
const UDP_PORT = 7777;
/** Datagrams under way, of each socket: well below what a tap and a socket keep. */
const WINDOW = 32;
/** By the guest's clock, which may be too fast. */
const WAIT_MS = 240_000;

const ip = (...words: readonly string[]): Promise<string> => runCommand(busybox, ['ip', ...words]);
const interfaceFolder = (name: string): string => `/sys/class/net/${name}`;
const isThere = (name: string): boolean => existsSync(interfaceFolder(name));

/** What the descriptors of this process are, in order. */
const openFiles = (): string[] =>
  readdirSync('/proc/self/fd')
    .map((fd) => {
      try {
        return readlinkSync(`/proc/self/fd/${fd}`).replace(/\d+/g, 'N');
      } catch {
        // The folder itself.
        return '';
      }
    })
    .filter((name) => name !== '')
    .sort();
/** Threads that the kernel runs for back-ends; until Linux 6.4 they are processes, later threads of this one. */
const kernelThreads = (): string[] =>
  readdirSync('/proc')
    .filter((name) => /^\d+$/.test(name))
    .map((pid) => {
      try {
        return readFileSync(`/proc/${pid}/comm`, 'utf8').trim();
      } catch {
        return '';
      }
    })
    .filter((name) => name.startsWith('vhost-'));

async function until(holds: () => boolean | Promise<boolean>, what: string): Promise<void> {
  const end = performance.now() + WAIT_MS;
  while (!(await holds())) {
    if (performance.now() > end) assert.unreachable(`waited ${WAIT_MS} ms for ${what}`);
    await delay(20);
  }
}

/** Gives the kernel's end its address. */
async function configure(name: string, mtu = 1500): Promise<void> {
  await ip('link', 'set', name, 'mtu', String(mtu), 'up');
  await ip('address', 'add', `${KERNEL_END}/24`, 'dev', name);
}

async function failure(opening: Promise<Port>): Promise<string> {
  try {
    await (await opening).close();
  } catch (error) {
    if (error instanceof VirtioError) return error.toLine();
    throw error;
  }
  assert.unreachable('the port opened');
  return '';
}

/** A socket of the guest's kernel that sends datagrams and checks that each comes back as it was. */
class KernelEnd {
  readonly #socket: Socket;
  readonly #seen = new Set<number>();
  readonly bad: string[] = [];
  #limit = 0;
  #bytes: (number: number) => number = () => 64;
  #sent = 0;
  #flood: NodeJS.Timeout | undefined;

  private constructor(socket: Socket) {
    this.#socket = socket;
    socket.on('message', (data) => this.#arrived(data));
    // A tap without carrier, or none at all: what was sent is lost, which is seen where it counts.
    socket.on('error', () => undefined);
  }

  static async open(): Promise<KernelEnd> {
    const socket = createSocket('udp4');
    socket.bind(0, KERNEL_END);
    await once(socket, 'listening');
    // Only what comes back from there is taken, and sending is cheaper.
    socket.connect(UDP_PORT, OUR_END);
    await once(socket, 'connect');
    return new KernelEnd(socket);
  }

  get answers(): number {
    return this.#seen.size;
  }

  /** Sends `count` datagrams, some at a time; resolves when all are back. */
  async exchange(count: number, bytes: (number: number) => number): Promise<void> {
    const before = this.answers;
    this.#bytes = bytes;
    this.#limit = this.#sent + count;
    for (let index = 0; index < WINDOW; index++) this.#sendNext();
    // However slow the machine is: as long as answers come, it goes on.
    while (this.answers - before < count) {
      const last = this.answers;
      await until(() => this.answers > last, `an answer: sent ${this.#sent}, answered ${this.answers}`);
    }
    assert.equal(this.bad, []);
  }

  /** Sends all the time, without looking at answers, until `close` or `stopFlood`. */
  flood(everyMs: number): void {
    const data = datagram(0x7fff_ffff, 200);
    this.#flood = setInterval(() => this.#socket.send(data), everyMs);
  }

  stopFlood(): void {
    clearInterval(this.#flood);
  }

  /** Sends one until it is answered: after a start the kernel's first ones may be lost. */
  async reach(): Promise<void> {
    const before = this.answers;
    let number = 0x4000_0000 + this.#sent;
    await until(async () => {
      this.#socket.send(datagram(number++, 64));
      await delay(10);
      return this.answers > before;
    }, 'an answer after a start');
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.stopFlood();
    this.#socket.close();
    await once(this.#socket, 'close');
  }

  #sendNext(): void {
    if (this.#sent >= this.#limit) return;
    const number = this.#sent++;
    this.#socket.send(datagram(number, this.#bytes(number)));
  }

  #arrived(data: Buffer): void {
    const number = data.readUInt32BE();
    const isOwn = number < 0x4000_0000;
    const expected = datagram(number, isOwn ? this.#bytes(number) : data.length);
    if (!data.equals(expected)) this.bad.push(`datagram ${number}: ${data.length} bytes`);
    else if (isOwn && this.#seen.has(number)) this.bad.push(`datagram ${number} came twice`);
    this.#seen.add(number);
    if (isOwn) this.#sendNext();
  }
}

const closeAll = async (ends: readonly KernelEnd[]): Promise<void> => {
  for (const end of ends) await end[Symbol.asyncDispose]();
};

/** Opens and starts a port with a machine behind it, calls `use`, and closes it all; nothing may be left. */
async function withPort(
  name: string,
  options: OpenPortOptions & { readonly mtu?: number },
  use: (port: Port, responder: Responder) => Promise<unknown>,
): Promise<unknown> {
  await using port = await openPort(`vhost-kernel:${name}`, options);
  await port.start();
  await configure(name, options.mtu);
  await using responder = new Responder(port, options.queues ?? 1);
  return await use(port, responder);
}

const mixedSizes = (number: number): number => 18 + ((number * 97) % 1400);

async function ping(...words: readonly string[]): Promise<void> {
  const output = await runCommand(busybox, ['ping', ...words, OUR_END]).catch((error: Error) => error.message);
  const [, sent, received] = /(\d+) packets transmitted, (\d+) packets received/.exec(output) ?? [];
  assert.is(received, sent, output);
  assert.ok(Number(received) > 0, output);
}

/** What each resolves to is for the test's output. */
const scenarios: Readonly<Record<string, () => Promise<unknown>>> = {
  /** Before the module is loaded. */
  async missing() {
    assert.match(await failure(openPort('vhost-kernel:tap0')), /^NOT_FOUND: \/dev\/vhost-net .*modprobe vhost_net/);
  },

  /** Ping, then datagrams of all sizes, each byte looked at on either side. */
  async traffic() {
    return await withPort('tap0', { macAddress: Uint8Array.of(2, 0, 0, 0, 0, 0x11) }, async (port, responder) => {
      assert.is(readFileSync(`${interfaceFolder('tap0')}/carrier`, 'utf8').trim(), '1');
      await ping('-c', '5', '-i', '0.1', '-W', '120');
      assert.match(await ip('neigh', 'show', OUR_END), /02:00:00:00:00:11/);
      await using end = await KernelEnd.open();
      await end.exchange(PACKETS, mixedSizes);
      assert.equal([responder.good, responder.bad, responder.unsent], [PACKETS, 0, 0]);
      const { rx, tx } = port.statistics();
      assert.ok(rx[0]!.packets >= PACKETS && tx[0]!.packets >= PACKETS);
      // The kernel sleeps until it is kicked; and it asks for fewer kicks while it is at work.
      assert.ok(tx[0]!.kicksSent > 0 && rx[0]!.kicksSent > 0);
      return `${port.features}; kicks sent and saved: ${tx[0]!.kicksSent}, ${tx[0]!.kicksSaved}`;
    });
  },

  /** The same with event indices, packets of several buffers, and two rings of the smallest size. */
  async events() {
    await withPort('tap0', { eventIndex: true, mtu: 9000, ringSize: 64 }, async (port) => {
      assert.match(String(port.features), /EVENT_IDX/);
      await ping('-c', '3', '-i', '0.1', '-W', '120', '-s', '8000');
      await using end = await KernelEnd.open();
      await end.exchange(Math.ceil(PACKETS / 5), (number) => 18 + ((number * 977) % 8800));
    });
  },

  async queues() {
    await withPort('tap0', { queues: 2 }, async (_port, responder) => {
      const ends: KernelEnd[] = [];
      await using _closing = { [Symbol.asyncDispose]: () => closeAll(ends) };
      for (let index = 0; index < 16; index++) ends.push(await KernelEnd.open());
      for (const end of ends) await end.reach();
      await Promise.all(ends.map((end) => end.exchange(Math.ceil(Math.min(PACKETS, 2000) / ends.length), mixedSizes)));
      assert.is(responder.bad, 0);
      for (const count of responder.byPair) assert.ok(count > 0, `datagrams by pair: ${responder.byPair}`);
    });
  },

  /** The kernel signals the queue's eventfd for a packet that comes while nobody looks. */
  async interrupts() {
    await using port = await openPort('vhost-kernel:tap0', { interrupts: 'receive' });
    await port.start();
    await configure('tap0');
    assert.is(port.interrupts, 'eventfd');
    const [rx, burst] = [port.rxQueue(0), port.burst(32)];
    const fd = rx.interruptFd;
    assert.ok(fd !== undefined);
    // What came before, as the interface came up.
    while (!rx.armInterrupt()) {
      rx.receive(burst);
      burst.free();
    }
    let signals = 0;
    const poll = native.pollFd(fd ?? -1, PollEvent.READABLE, () => {
      signals++;
      native.drainEventFd(fd ?? -1);
    });
    try {
      await using end = await KernelEnd.open();
      end.flood(50);
      await until(() => signals > 0, 'an interrupt');
      assert.ok(rx.receive(burst) > 0);
      burst.free();
    } finally {
      poll.close();
    }
  },

  /** Twenty stops and starts under traffic. */
  async restarts() {
    return await withPort('tap0', {}, async (port, responder) => {
      await using end = await KernelEnd.open();
      end.flood(2);
      const ms = { reach: 0, stop: 0, start: 0 };
      const timed = async (what: keyof typeof ms, work: Promise<void>): Promise<void> => {
        const start = performance.now();
        await work;
        ms[what] += Math.round(performance.now() - start);
      };
      for (let count = 0; count < 20; count++) {
        await timed('reach', end.reach());
        await timed('stop', port.stop());
        await timed('start', port.start());
      }
      await end.reach();
      end.stopFlood();
      await end.exchange(50, mixedSizes);
      assert.is(responder.bad, 0);
      return `ms of all starts, stops, and waits for the first answer: ${ms.start}, ${ms.stop}, ${ms.reach}`;
    });
  },

  /** Closed in mid-traffic; a tap that was there before stays, one that was made goes. */
  async closing() {
    await runCommand(busybox, ['tunctl', '-t', 'tap1']);
    for (const [name, stays] of [
      ['tap0', false],
      ['tap1', true],
    ] as const) {
      await using port = await openPort(`vhost-kernel:${name}`, {});
      await port.start();
      await configure(name);
      await using responder = new Responder(port, 1);
      await using end = await KernelEnd.open();
      await end.reach();
      end.flood(1);
      await delay(100);
      await port.close();
      end.stopFlood();
      await responder.stop();
      assert.is(isThere(name), stays, name);
    }
    await ip('link', 'del', 'tap1');
  },

  /** The interface deleted in mid-traffic. */
  async deleted() {
    await using port = await openPort('vhost-kernel:tap0', {});
    const faults: VirtioError[] = [];
    port.on('fault', (error) => faults.push(error));
    await port.start();
    await configure('tap0');
    await using responder = new Responder(port, 1);
    await using end = await KernelEnd.open();
    await end.reach();
    end.flood(1);
    await ip('link', 'del', 'tap0');
    await until(() => faults.length > 0, 'the fault');
    end.stopFlood();
    assert.match(faults[0]!.toLine(), /^PEER_GONE: .*vhost-kernel:tap0.*deleted/);
    assert.is(port.state, 'failed');
    await port.start().then(
      () => assert.unreachable('started'),
      (error: VirtioError) => assert.match(error.toLine(), /^PEER_GONE: .*deleted.*open it again/),
    );
    await port.close();
    await responder.stop();
    assert.is(faults.length, 1);
    // The name is free again.
    await withPort('tap0', {}, async () => {
      await using next = await KernelEnd.open();
      await next.reach();
    });
  },

  async refusals() {
    await using holder = await openPort('vhost-kernel:', {});
    const name = holder.address.slice('vhost-kernel:'.length);
    assert.match(name, /^tap\d+$/);
    assert.match(await failure(openPort(holder.address)), /^IN_USE: .*another program has it/);
    assert.match(await failure(openPort(holder.address, { queues: 2 })), /^WRONG_KIND: .*made for one queue/);
    await holder.close();
    assert.match(await failure(openPort('vhost-kernel:lo')), /^WRONG_KIND: .*lo.*no tap/);
    assert.match(await failure(openPort('vhost-kernel:a-name-too-long-0')), /^INVALID_ARGUMENT: .* 15 is the most/);
    assert.match(await failure(openPort('vhost-kernel:a/b')), /^INVALID_ARGUMENT: .*no name/);
    assert.not(isThere(name));
    const asNobody = async (pattern: RegExp): Promise<void> => {
      process.seteuid?.(65534);
      try {
        assert.match(await failure(openPort('vhost-kernel:tap0')), pattern);
      } finally {
        process.seteuid?.(0);
      }
    };
    await asNobody(/^PERMISSION_DENIED: \/dev\/vhost-net .*run as root/);
    // Somebody who may open the files, and may make no interface.
    for (const path of ['/dev/vhost-net', '/dev/net/tun']) chmodSync(path, 0o666);
    await asNobody(/^PERMISSION_DENIED: .*tap0.* CAP_NET_ADMIN .*ip tuntap add tap0/);
  },
};

/** Runs a scenario; nothing of it may be left afterwards. */
async function run(name: string): Promise<unknown> {
  const before = { files: openFiles(), threads: kernelThreads() };
  const note = await scenarios[name]?.();
  // The kernel takes its time to end a thread.
  await until(() => kernelThreads().length <= before.threads.length, 'the end of the threads of vhost');
  assert.equal(openFiles(), before.files);
  assert.not(isThere('tap0'));
  return note;
}

// What is opened at the first use is not a leak.
await runCommand(busybox, ['true']);
if (!names.includes('missing')) await (await openPort('vhost-kernel:warm')).close();
for (const name of names) {
  const start = performance.now();
  const outcome = await run(name).then(
    (note) => ({ note: typeof note === 'string' ? note : '' }),
    (error: Error) => ({ error: `${error.message}\n${error.stack}` }),
  );
  console.log(JSON.stringify({ name, ms: Math.round(performance.now() - start), ...outcome }));
}
