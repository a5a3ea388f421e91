/** The control path of `virtio-pmd backend` as a process: connections without end, and peers that are slow or say nothing. */

import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';

import { native } from '../../native/index.js';
import { runCli, startCli } from '../support/cli.js';
import { type CliDaemon, withDaemon } from '../support/cli-daemon.js';
import { withFolder } from '../support/temp-folder.js';
import { until } from '../support/until.js';
import { FakeFrontend } from '../support/vhost-user-frontend.js';
import { Id, message, RawPeer } from '../support/vhost-user-raw.js';

export const timeBoundSeconds = 240;

const isFull = process.env['VIRTIO_PMD_FULL'] === '1';
const CONNECTIONS = isFull ? 10_000 : 1000;
/** So many at a time; each is brought up with memory and rings, and goes in the middle of it. */
const AT_ONCE = 8;
const WARM_UP = 40;
const PATIENCE_MS = 60_000;
/** What an answer may take on a machine that has other things to do; half of what a stalled peer is waited for. */
const PROMPT_MS = 2500;

const at = (path: string): string => `--socket-path=${path}`;

/** What another process holds: descriptors, and mappings of files, memory files among them. */
const held = (pid: number): { readonly fds: number; readonly mappings: number } => ({
  fds: readdirSync(`/proc/${pid}/fd`).length,
  mappings: readFileSync(`/proc/${pid}/maps`, 'utf8')
    .split('\n')
    .filter((line) => line.includes('/')).length,
});

/** Connects, brings up what the round says, and goes without a word. */
async function comeAndGo(path: string, round: number): Promise<void> {
  const frontend = FakeFrontend.connect(path);
  try {
    if (round % 4 === 0) return;
    if (round % 4 === 1) await frontend.open();
    else await frontend.bringUp();
    if (round % 4 === 3) await frontend.stopRing(1);
  } finally {
    frontend.close();
  }
}

async function storm(path: string, count: number): Promise<void> {
  let next = 0;
  const worker = async (): Promise<void> => {
    while (next < count) await comeAndGo(path, next++);
  };
  await Promise.all(Array.from({ length: AT_ONCE }, worker));
}

/** Asks for the features, again and again, until `isOver`; returns the longest time that an answer took. */
async function askAlong(frontend: FakeFrontend, isOver: () => boolean): Promise<number> {
  let longest = 0;
  while (!isOver()) {
    const began = performance.now();
    assert.ok((await frontend.askU64(Id.GET_FEATURES)) !== 0n);
    longest = Math.max(longest, performance.now() - began);
    await sleep(20);
  }
  return longest;
}

const test = suite('connections of the daemon');

test(`${CONNECTIONS} connections come and go: the process holds what it held before, one that stays is answered at once`, () =>
  withFolder((folder) => {
    const path = join(folder, 'x.sock');
    // Its events are some ten thousand lines: the metrics say what is needed of them.
    return withDaemon([at(path), '--metrics=0'], async (daemon) => {
      const bystander = FakeFrontend.connect(path);
      try {
        await bystander.bringUp();
        await storm(path, WARM_UP);
        await allGone(daemon, 1 + WARM_UP);
        const before = held(daemon.cli.pid);
        let isOver = false;
        const longest = askAlong(bystander, () => isOver);
        try {
          await storm(path, CONNECTIONS);
        } finally {
          isOver = true;
        }
        await allGone(daemon, 1 + WARM_UP + CONNECTIONS);
        await until(
          () => held(daemon.cli.pid).fds <= before.fds && held(daemon.cli.pid).mappings <= before.mappings,
          `${JSON.stringify(before)} again, it holds ${JSON.stringify(held(daemon.cli.pid))}`,
          PATIENCE_MS,
        );
        assert.ok((await longest) < PROMPT_MS, `an answer took ${await longest} ms`);
      } finally {
        bystander.close();
      }
      const end = await runCli(['loopback', '--connect', path, '--packets', '10000']);
      assert.is(end.status, 0, end.stderr);
    });
  }));

/** Waits until so many connections were made and all but one are gone. */
async function allGone(daemon: CliDaemon, made: number): Promise<void> {
  const url = String((await daemon.waitFor((event) => event['metrics'] !== undefined, 'the address'))['metrics']);
  for (const deadline = performance.now() + PATIENCE_MS; ; await sleep(50)) {
    const text = await (await fetch(url)).text();
    const value = (name: string): number => Number(new RegExp(`^${name}\\{[^}]*\\} (\\d+)$`, 'm').exec(text)?.[1]);
    if (value('virtio_pmd_connections_made_total') === made && value('virtio_pmd_connections') === 1) return;
    assert.ok(performance.now() < deadline, `${made} connections made and one left:\n${text.slice(0, 2000)}`);
  }
}

/** Peers that hold something up, each in its own way, until they are closed. */
const HINDRANCES: Readonly<Record<string, (peer: RawPeer) => Promise<void>>> = {
  'says nothing at all': async () => undefined,
  'stops within a header': (peer) => peer.sendBytes(message(Id.GET_FEATURES).subarray(0, 7)),
  'stops within a payload': (peer) => peer.sendBytes(message(Id.SET_FEATURES, Buffer.alloc(8)).subarray(0, 15)),
  'sends a byte now and then': async (peer) => {
    for (const byte of message(Id.GET_FEATURES)) {
      await peer.sendBytes(Uint8Array.of(byte));
      await sleep(100);
    }
  },
  // It reads nothing: the answers fill the socket, and then there is no room for one.
  'asks without end and reads no answer': async (peer) => {
    const question = message(Id.GET_FEATURES);
    for (let refused = 0; refused < 20; ) {
      const taken = native.send(peer.fd, question, []);
      refused = taken === 0 ? refused + 1 : 0;
      if (taken === 0) await sleep(10);
      else if (taken < question.length) return;
    }
  },
};

test('peers that are slow, stop in the middle, say nothing or read nothing delay nobody else', () =>
  withFolder((folder) => {
    const [path, other] = [join(folder, 'x.sock'), join(folder, 'y.sock')] as const;
    return withDaemon([at(path), at(other), '--metrics=0'], async (daemon) => {
      const bystander = FakeFrontend.connect(path);
      const guest = startCli(['loopback', '--json', '--connect', other, '--duration', '4']);
      const peers: RawPeer[] = [];
      try {
        await bystander.bringUp();
        const before = held(daemon.cli.pid);
        let isOver = false;
        const longest = askAlong(bystander, () => isOver);
        try {
          // Several of each, on both sockets.
          for (const socket of [path, other, path]) {
            for (const hinder of Object.values(HINDRANCES)) {
              const peer = RawPeer.connect(socket);
              peers.push(peer);
              await hinder(peer);
            }
          }
          // Who comes after them is served just as well.
          const began = performance.now();
          const newcomer = FakeFrontend.connect(path);
          try {
            await newcomer.bringUp();
            assert.ok(performance.now() - began < 2 * PROMPT_MS, `it took ${performance.now() - began} ms to come up`);
          } finally {
            newcomer.close();
          }
          const end = await guest.done;
          assert.is(end.status, 0, end.stderr);
          const { ok, lost, received } = JSON.parse(end.stdout) as Record<string, unknown>;
          assert.equal([ok, lost], [true, 0]);
          assert.ok(Number(received) > 1000);
        } finally {
          isOver = true;
        }
        assert.ok((await longest) < PROMPT_MS, `an answer took ${await longest} ms`);
        for (const peer of peers) peer.close();
        await until(() => held(daemon.cli.pid).fds <= before.fds, 'what they held to be let go', PATIENCE_MS);
      } finally {
        for (const peer of peers) peer.close();
        bystander.close();
        guest.kill('SIGKILL');
        await guest.done;
      }
    });
  }));

test.run();
