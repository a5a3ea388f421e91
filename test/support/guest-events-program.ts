/**
 * What runs in the guest: a port whose packets come by interrupt, and that writes down what its device tells.
 *
 *   node guest-events-program.js 0000:01:00.0 '{"legacy":true}' STOPFILE
 *
 * One line each: what it has first (`port {…}`), packets whose interrupt was seen (`signals {…}`), pings that slept until
 * each came back (`pings {…}`), what became of a frame that is too long (`long {…}`), each event, and `end {…}`. Between, packets go round.
 */

import { existsSync, readSync } from 'node:fs';
import { setTimeout as delay } from 'node:timers/promises';
import { openPort, type Port } from '../../driver/index.js';

/** What the lines hold. */
export interface EventsProgramLines {
  readonly port: { readonly interrupts: string; readonly linkUp: boolean; readonly maxFrameBytes: number };
  readonly signals: { readonly rounds: number };
  readonly pings: { readonly rounds: number };
  readonly long: { readonly sent: number; readonly tooLong: number; readonly shorter: number };
  readonly end: { readonly received: number; readonly state: string; readonly closed: boolean };
}

const PINGS = 50;
const SIGNALS = 10;
const SIGNAL_MS = 30_000;
const FRAME_BYTES = 60;
/** Packets under way in mid-traffic. */
const WINDOW = 8;

const say = (what: string, value?: unknown): void =>
  console.log(value === undefined ? what : `${what} ${JSON.stringify(value)}`);

function send(port: Port, count: number, bytes = FRAME_BYTES): number {
  const burst = port.burst(WINDOW);
  burst.allocate(count);
  for (let index = 0; index < burst.count; index++) burst.bytes(index).setLength(bytes);
  const sent = port.txQueue(0).send(burst);
  burst.free();
  return sent;
}

/** Sleeps until packets come; returns how many. */
async function receive(port: Port, timeoutMs: number): Promise<number> {
  const burst = port.burst(32);
  await port.rxQueue(0).waitForPackets({ timeoutMs });
  const received = port.rxQueue(0).receive(burst);
  burst.free();
  return received;
}

/** Whether an eventfd was signalled since the last look. */
function isSignalled(fd: number): boolean {
  try {
    return readSync(fd, new Uint8Array(8)) === 8;
  } catch {
    return false;
  }
}

/** The interrupt itself: looking at the ring would find the packets as well. */
async function signals(port: Port): Promise<void> {
  const rx = port.rxQueue(0);
  for (let round = 0; round < SIGNALS; round++) {
    while (!rx.armInterrupt()) await receive(port, 0);
    send(port, 1);
    const deadline = performance.now() + SIGNAL_MS;
    while (!isSignalled(rx.interruptFd!)) {
      if (performance.now() > deadline) throw new Error(`no interrupt in ${SIGNAL_MS} ms`);
      await delay(2);
    }
    rx.disarmInterrupt();
    while ((await receive(port, 1000)) === 0);
  }
  say('signals', { rounds: SIGNALS });
}

async function pings(port: Port): Promise<void> {
  for (let round = 0; round < PINGS; round++) {
    send(port, 1);
    while ((await receive(port, 30_000)) === 0);
  }
  say('pings', { rounds: PINGS });
}

async function tooLong(port: Port): Promise<void> {
  const limit = port.maxFrameBytes!;
  // Without MTU nothing that a buffer holds is too long.
  if (limit > 1600) return;
  const sent = send(port, 1, limit + 1);
  const { drops } = port.statistics().tx[0]!;
  // Without the tag that the limit has room for.
  send(port, 1, limit - 4);
  say('long', { sent, tooLong: drops.tooLong, shorter: await receive(port, 30_000) });
}

async function traffic(port: Port, stopFile: string): Promise<number> {
  let received = 0;
  while (port.state === 'started' && !existsSync(stopFile)) {
    send(port, WINDOW);
    received += await receive(port, 20);
    // An emulated processor has other work: this program's own end, and whoever looks at it.
    await delay(10);
  }
  return received;
}

const [, , address, options, stopFile] = process.argv;
const port = await openPort(address!, { ...JSON.parse(options!), interrupts: 'receive' });
port.on('link', (up) => say(`event link ${up ? 'up' : 'down'}`));
port.on('announce', () => say('event announce'));
port.on('needs-reset', () => say('event needs-reset'));
port.on('fault', (error) => say(`event fault ${error.toLine()}`));
await port.start();
say('port', { interrupts: port.interrupts, linkUp: port.linkUp, maxFrameBytes: port.maxFrameBytes });
await signals(port);
await pings(port);
await tooLong(port);
say('traffic');
const received = await traffic(port, stopFile!);
const { state } = port;
await port.close();
say('end', { received, state, closed: port.state === 'closed' });
