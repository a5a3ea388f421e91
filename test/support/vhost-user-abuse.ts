/**
 * Hostile front-ends beside one that behaves: what must hold after every case.
 *
 * CLOSE: the connection is closed. NACK: the request is refused with an acknowledgement where one was asked for, and the
 * connection is closed where not. After every case no descriptor is left, the rings of a second front-end run on, and
 * nobody was told of more than one error of a class in a second.
 */

import * as assert from 'uvu/assert';
import { native } from '../../native/index.js';
import {
  type BenchOptions,
  BIT_30,
  type FakeFrontend,
  MEMORY_BYTES,
  type ServerBench,
  VERSION_1,
  withServer,
} from './vhost-user-frontend.js';
import { countFds, Id, u64s, until, VERSION } from './vhost-user-raw.js';

/** Ten times the 50 ms that the loop may stand still. */
const LONGEST_LAG_MS = 500;

export interface AbuseBench extends ServerBench {
  /** A front-end that has come as far as `prepare` brings it, and is closed after the case. */
  hostile(prepare?: (frontend: FakeFrontend) => Promise<void>): Promise<FakeFrontend>;
}

/** Runs cases beside a front-end that behaves, and checks what must hold after all of them. */
export function withBystander(body: (bench: AbuseBench) => Promise<void>, options: BenchOptions = {}): Promise<void> {
  return withServer(async (bench) => {
    const { frontend: bystander, device } = await bench.connect();
    await bystander.bringUp();
    let last = performance.now();
    let lag = 0;
    const timer = setInterval(() => {
      lag = Math.max(lag, performance.now() - last);
      last = performance.now();
    }, 5);
    try {
      const hostile = async (prepare?: (frontend: FakeFrontend) => Promise<void>): Promise<FakeFrontend> => {
        const { frontend } = await bench.connect();
        await prepare?.(frontend);
        return frontend;
      };
      await body({ ...bench, hostile });
    } finally {
      clearInterval(timer);
    }
    assert.equal([...device.running.keys()], [0, 1], "the bystander's rings run");
    assert.equal([...device.enabled], [0, 1]);
    assert.ok((await bystander.askU64(Id.GET_FEATURES)) !== 0n, 'the bystander is answered');
    assert.ok(lag < LONGEST_LAG_MS, `the event loop stood still for ${lag} ms`);
  }, options);
}

/** The front-end is closed by the other side, which keeps nothing of it. */
export async function assertClosed(bench: AbuseBench, frontend: FakeFrontend, what: string): Promise<void> {
  const open = bench.server.connections;
  await frontend.expectClosed();
  await until(() => bench.server.connections < open || bench.devices.at(-1)!.isClosed, `${what}: the device closed`);
  assert.ok(
    bench.errors().some((event) => event.outcome === 'CLOSE'),
    `${what}: told of`,
  );
  frontend.close();
}

export interface Case {
  readonly request: number;
  readonly payload?: Buffer;
  readonly fds?: readonly number[];
  /** Brings the front-end to where the case begins. */
  readonly prepare?: (frontend: FakeFrontend) => Promise<void>;
  readonly flags?: number;
}

export const ready = (frontend: FakeFrontend): Promise<void> => frontend.open();
export const negotiated = async (frontend: FakeFrontend): Promise<void> => {
  await frontend.open();
  await frontend.do(Id.SET_FEATURES, u64s(VERSION_1 | BIT_30));
};
export const shared = async (frontend: FakeFrontend): Promise<void> => {
  await negotiated(frontend);
  await frontend.share();
};
export const running = (frontend: FakeFrontend): Promise<void> => frontend.bringUp();

/** A request that is refused: with an acknowledgement and no descriptor kept, or by closing the connection. */
export async function assertNack(bench: AbuseBench, what: string, abuse: Case): Promise<void> {
  const polite = await bench.hostile(abuse.prepare ?? ready);
  const device = bench.devices.at(-1)!;
  device.takeCalls();
  const before = countFds();
  assert.ok(await polite.isRefused(abuse.request, abuse.payload, abuse.fds), `${what}: should be refused`);
  assert.ok((await polite.askU64(Id.GET_FEATURES)) !== 0n, `${what}: goes on`);
  assert.is(countFds(), before, `${what}: descriptors`);
  const { error, outcome } = bench.errors().at(-1)!;
  assert.is(outcome, 'NACK', `${what}: ${error.toLine()}`);
  assert.is(error.code, 'PROTOCOL_VIOLATION', `${what}: ${error.toLine()}`);
  assert.not(
    device.calls.some((call) =>
      /^(setMemory|startRing|setFeatures|setLog|updateIotlb|invalidateIotlb|sendRarp|reset)/.test(call),
    ),
    `${what}: ${device.calls}`,
  );
  polite.close();
  await assertCloses(bench, `${what}, no acknowledgement asked for`, abuse);
}

export async function assertCloses(bench: AbuseBench, what: string, abuse: Case): Promise<void> {
  const frontend = await bench.hostile(abuse.prepare ?? ready);
  await frontend.send(abuse.request, abuse.payload, { flags: abuse.flags ?? VERSION, fds: abuse.fds ?? [] });
  await assertClosed(bench, frontend, what);
}

/** Makes `count` descriptors and closes them after `body`. */
export async function withFds(count: number, body: (fds: number[]) => Promise<void>): Promise<void> {
  const fds = Array.from({ length: count }, () => native.createEventFd(0));
  try {
    await body(fds);
  } finally {
    for (const fd of fds) native.closeFd(fd);
  }
}

/** Runs with a memory file of 1 MiB. */
export async function withMemory(body: (fd: number) => Promise<void>): Promise<void> {
  const fd = native.createMemory('hostile', MEMORY_BYTES, 0);
  try {
    await body(fd);
  } finally {
    native.closeFd(fd);
  }
}
