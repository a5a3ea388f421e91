/** How long a driver takes to its first packet: when it connects, and when its back-end was gone and is there again. */

import { join } from 'node:path';
import { setImmediate as nextTurn } from 'node:timers/promises';

import {
  DeviceThread,
  ErrorCode,
  echoPort,
  NetDevice,
  openPort,
  type Port,
  VhostUserServer,
  VirtioError,
} from 'virtio-pmd';
import { type Figure, rounded } from './comparison.js';
import { summarize } from './statistics.js';

/** Milliseconds until the first packet is back. */
export interface Reconnect {
  /** From `openPort` on, with a back-end that listens. */
  readonly connect: Figure;
  /** From the moment that a new back-end listens, the old one having been closed under traffic. */
  readonly reconnect: Figure;
}

const SAMPLES = 7;
const PATIENCE_MS = 10_000;
const FRAME_BYTES = 64;

/** Connects and reconnects several times over a socket in `folder`, both sides in this process. */
export async function measureReconnect(folder: string, signal: AbortSignal, samples = SAMPLES): Promise<Reconnect> {
  const thread = await DeviceThread.start({ idle: 'yield' });
  const connects: number[] = [];
  const reconnects: number[] = [];
  try {
    for (let run = 0; run < samples; run++) {
      signal.throwIfAborted();
      const times = await oneRun(thread, join(folder, `reconnect-${run}.sock`));
      connects.push(times.connect);
      reconnects.push(times.reconnect);
    }
  } finally {
    await thread.stop();
  }
  return { connect: figure(connects), reconnect: figure(reconnects) };
}

async function oneRun(thread: DeviceThread, socket: string): Promise<{ connect: number; reconnect: number }> {
  const listen = () =>
    VhostUserServer.listen(socket, { createDevice: () => new NetDevice(thread, { port: echoPort() }) });
  let server = await listen();
  let port: Port | undefined;
  try {
    const connecting = performance.now();
    port = await openPort(`vhost-user:${socket}`, { reconnect: true });
    await port.start();
    await firstPacket(port);
    const connect = performance.now() - connecting;
    await server.close();
    await until(() => port!.state === 'disconnected', 'the driver to notice');
    server = await listen();
    const reconnecting = performance.now();
    await until(() => port!.state === 'started', 'the driver to be back');
    await firstPacket(port);
    return { connect, reconnect: performance.now() - reconnecting };
  } finally {
    await port?.close();
    await server.close();
  }
}

/** Sends a packet and waits for it. */
async function firstPacket(port: Port): Promise<void> {
  const burst = port.burst(1);
  const tx = port.txQueue(0);
  const rx = port.rxQueue(0);
  rx.receive(burst);
  burst.allocate(1);
  burst.bytes(0).setLength(FRAME_BYTES);
  await until(() => burst.count === 0 || tx.send(burst) > 0, 'room for a packet');
  await until(() => rx.receive(burst) > 0, 'the packet that comes back');
  burst.free();
}

async function until(isSo: () => boolean, what: string): Promise<void> {
  const deadline = performance.now() + PATIENCE_MS;
  while (!isSo()) {
    if (performance.now() > deadline) throw new VirtioError(ErrorCode.TIMEOUT, `waited in vain for ${what}`);
    await nextTurn();
  }
}

function figure(milliseconds: readonly number[]): Figure {
  const { samples, max, median, spread } = summarize(milliseconds);
  return { samples: samples.map(rounded), max: rounded(max), median: rounded(median), spread: rounded(spread) };
}
