/** The examples and testpmd in a guest, over its PCI devices: pings with a kernel in both directions, forwarding, and a capture. */

import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as pause } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';

import { switchPort } from '../../driver/backend/ports/built-in.js';
import { PcapReader } from '../../driver/pcap/pcap-reader.js';
import { GuestBackend } from '../support/guest-backend.js';
import { ANYBODY, assertPings, bringUp, NETWORK } from '../support/guest-checks.js';
import { DRIVER_MODULES, makeHugepages, runCli } from '../support/guest-driver.js';
import { bootGuest, type Guest } from '../support/guest-machine.js';
import { skipWithout } from '../support/skip.js';
import { StreamPeer } from '../support/stream-peer.js';
import { until } from '../support/until.js';

export const timeBoundSeconds = 240;
export const fullTimeBoundSeconds = 900;

const test = skipWithout(suite('examples in a guest'), 'qemu', 'kernel', 'busybox');

const full = process.env['VIRTIO_PMD_FULL'] === '1';
const FRAMES = full ? 10_000 : 500;
const PINGS = full ? 1000 : 20;
/** Frames under way at once: what the ring of the slowest holds. */
const WINDOW = 64;
const NODE_MS = 300_000;
const HUGEPAGES = 48;

const [OURS, LEFT, RIGHT] = ['00:0c.0', '00:09.0', '00:0a.0'];
const PINGER = new URL('../support/guest-pinger.js', import.meta.url);
const CLI = new URL('../../driver/cli/main.js', import.meta.url);
const example = (name: string): URL => new URL(`../../examples/${name}.js`, import.meta.url);
const node = (script: URL, ...words: readonly (string | number)[]): string =>
  ['chroot /host', process.execPath, fileURLToPath(script), ...words].join(' ');

/** Starts a program in the guest and waits until it says that it works. */
async function startProgram(guest: Guest, says: string, command: string): Promise<void> {
  await guest.run(
    `${command} >/tmp/program 2>&1 & echo $! >/tmp/pid
     while ! grep -q '${says}' /tmp/program; do
       [ -d /proc/$(cat /tmp/pid) ] || { cat /tmp/program; exit 1; }
       usleep 100000
     done`,
    { timeoutMs: NODE_MS },
  );
}

/** Waits for its end, after Ctrl-C unless it ends by itself; resolves to what it printed. */
const endProgram = (guest: Guest, signal = '-INT'): Promise<string> =>
  guest.run(
    `[ -z '${signal}' ] || kill ${signal} $(cat /tmp/pid)
     while [ -d /proc/$(cat /tmp/pid) ]; do usleep 100000; done
     cat /tmp/program`,
    { timeoutMs: NODE_MS },
  );

/** A frame of its own length and content. */
function frameOf(number: number): Buffer {
  const frame = Buffer.alloc(60 + ((number * 37) % 1455), number & 0xff);
  Buffer.from([0x02, 0, 0, 0, 0, 0x77, 0x02, 0, 0, 0, 0, 0x88, 0x88, 0xb5]).copy(frame);
  frame.writeUInt32BE(number, 14);
  return frame;
}

/** Sends frames and waits for as many; a window keeps them from piling up in QEMU, which drops what the guest does not take. */
async function sendAll(from: StreamPeer, arrived: () => number, count: number): Promise<void> {
  for (let sent = 0; sent < count; sent += WINDOW) {
    for (let number = sent; number < Math.min(sent + WINDOW, count); number++) from.send(frameOf(number));
    await until(() => arrived() >= Math.min(sent + WINDOW, count), `frame ${sent} of ${count}`, NODE_MS);
  }
}

/** What l2fwd makes of a frame: from its own address on that side to the one that stands for the other's neighbour. */
function forwarded(number: number, source: readonly number[], port: number): Buffer {
  const frame = frameOf(number);
  Buffer.from([0x02, 0, 0, 0, 0, port, ...source]).copy(frame);
  return frame;
}

async function pingBothWays(guest: Guest): Promise<void> {
  await bringUp(guest, `${NETWORK}1`);
  await startProgram(guest, 'answering on', node(example('ping-responder'), OURS));
  // The first answers are slow: the emulated processor compiles the program yet.
  await guest.run(`for i in $(seq 30); do ping -c 1 -W 2 ${ANYBODY} && exit 0; done; exit 1`, { timeoutMs: 90_000 });
  await assertPings(guest, ANYBODY, { count: PINGS });
  await assertPings(guest, ANYBODY, { count: 3, bytes: 1472 });
  // Its address by neighbour discovery; any is answered.
  await guest.run('ping -6 -c 3 -W 5 fe80::1234%eth0', { timeoutMs: 30_000 });
  const [, received, answered] = /received (\d+) {2}answered (\d+)/.exec(await endProgram(guest)) ?? [];
  assert.ok(Number(answered) >= PINGS + 6 && Number(received) >= Number(answered), `${received}, ${answered}`);
  // At its first answer the kernel asks whether the neighbour is still there: many pings outlive what it takes for granted.
  await guest.run('echo 0 > /proc/sys/net/ipv4/neigh/eth0/delay_first_probe_time');
  const pinger = node(PINGER, OURS, `${NETWORK}2`, `${NETWORK}1`, PINGS);
  assert.match(await guest.run(pinger, { timeoutMs: NODE_MS }), `answered ${PINGS} of ${PINGS}`);
}

async function forward(guest: Guest, left: StreamPeer, right: StreamPeer, taken: Buffer[][]): Promise<void> {
  await startProgram(guest, 'forwarding between', node(example('l2fwd'), LEFT, RIGHT, '--period', 1));
  await Promise.all([sendAll(left, () => taken[1]!.length, FRAMES), sendAll(right, () => taken[0]!.length, FRAMES)]);
  const lines = (await endProgram(guest)).trim().split('\n').slice(-2);
  for (const line of lines) assert.match(line, `sent ${FRAMES}  received ${FRAMES}  dropped 0`);
  for (const [port, frames] of taken.entries()) {
    const source = [0x02, 0, 0, 0, 0x02, port];
    for (const [number, frame] of frames.entries()) {
      assert.ok(
        frame.equals(forwarded(number, source, port)),
        `port ${port}, frame ${number}: ${frame.toString('hex')}`,
      );
    }
  }
}

/** The same two devices as ports of testpmd, by `-a`: frames pass as they are, and both ends of it are counted. */
async function forwardByTestpmd(guest: Guest, left: StreamPeer, right: StreamPeer, taken: Buffer[][]): Promise<void> {
  for (const frames of taken) frames.length = 0;
  const devices = [LEFT, RIGHT].flatMap((address) => ['-a', address!]);
  const words = ['testpmd', "--lcores='(0,1)@0'", ...devices, '--', '--auto-start', '--total-num-mbufs=2048'];
  // It ends at the end of its input, or by the signal.
  await guest.run('[ -p /tmp/input ] || mkfifo /tmp/input; sleep 1000 >/tmp/input &');
  await startProgram(guest, 'Press enter to exit', `${node(CLI, ...words)} </tmp/input`);
  await Promise.all([sendAll(left, () => taken[1]!.length, FRAMES), sendAll(right, () => taken[0]!.length, FRAMES)]);
  const said = await endProgram(guest);
  assert.equal(
    [...said.matchAll(/RX-packets: (\d+)/g)].slice(0, 2).map(([, count]) => Number(count)),
    [FRAMES, FRAMES],
    said,
  );
  assert.match(said, /Bye\.\.\.\s*$/);
  for (const frames of taken) {
    for (const [number, frame] of frames.entries()) assert.ok(frame.equals(frameOf(number)), `frame ${number}`);
  }
}

async function sleepUntilPackets(guest: Guest, left: StreamPeer): Promise<void> {
  await startProgram(guest, 'waiting on', node(example('interrupt-receiver'), LEFT, '--count', PINGS));
  // One by one, far apart: each finds the receiver asleep, and wakes it.
  for (let number = 0; number < PINGS; number++) {
    left.send(frameOf(number));
    await pause(50);
  }
  const said = await endProgram(guest, '');
  const [, received, wakes] = /received (\d+) packets, woken (\d+) times/.exec(said) ?? [];
  assert.is(Number(received), PINGS, said);
  assert.ok(Number(wakes) > 0 && Number(wakes) <= PINGS, said);
}

async function capture(guest: Guest, left: StreamPeer, folder: string): Promise<void> {
  // The guest's own memory is the one place in the host's files that it can write to.
  await startProgram(guest, 'capturing on', node(example('capture'), LEFT, '/run/packets.pcap', '--count', WINDOW));
  for (let number = 0; number < WINDOW; number++) left.send(frameOf(number));
  assert.match(await endProgram(guest, ''), `${WINDOW} packets in /run/packets.pcap`);
  const path = join(folder, 'packets.pcap');
  writeFileSync(path, await guest.readFile('/host/run/packets.pcap'));
  const reader = PcapReader.open(path);
  try {
    for (let number = 0; number < WINDOW; number++) {
      assert.ok(frameOf(number).equals(reader.next()!.bytes), `packet ${number}`);
    }
    assert.is(reader.next(), undefined);
  } finally {
    reader.close();
  }
}

test('ping-responder and a pinger with the guest’s kernel on one switch; l2fwd and testpmd between two devices; capture; interrupts', async () => {
  const folder = mkdtempSync(join(tmpdir(), 'e-'));
  const taken: Buffer[][] = [[], []];
  const peers = await Promise.all(
    taken.map((frames, port) => StreamPeer.listen(join(folder, `${port}`), (frame) => frames.push(Buffer.from(frame)))),
  );
  const [left, right] = peers as [StreamPeer, StreamPeer];
  try {
    await using backend = await GuestBackend.start({ port: () => switchPort() });
    const streamCard = (peer: StreamPeer, port: number, properties: string): string[] => [
      ...peer.netdev(`s${port}`),
      '-device',
      `virtio-net-pci,netdev=s${port},mac=02:00:00:00:02:0${port},romfile=,${properties}`,
    ];
    await using guest = await bootGuest({
      iommu: true,
      hostRoot: true,
      memoryMb: 768,
      modules: [...DRIVER_MODULES, 'virtio_net'],
      cards: [
        { path: backend.path, properties: ['addr=0x8'] },
        { path: backend.path, properties: ['addr=0xc', 'disable-legacy=on'] },
      ],
      arguments: [
        ...streamCard(left, 0, 'addr=0x9,disable-legacy=on,iommu_platform=on,ats=on'),
        ...streamCard(right, 1, 'addr=0xa,disable-legacy=on,iommu_platform=on,ats=on'),
      ],
    });
    await makeHugepages(guest, HUGEPAGES);
    const bound = await runCli(guest, 'devbind', '--bind', 'vfio-pci', OURS!, LEFT!, RIGHT!);
    assert.is(bound.status, 0, bound.output);
    await pingBothWays(guest);
    await forward(guest, left, right, taken);
    await forwardByTestpmd(guest, left, right, taken);
    await capture(guest, left, folder);
    await sleepUntilPackets(guest, left);
    assert.equal(backend.errors, []);
  } finally {
    for (const peer of peers) await peer[Symbol.asyncDispose]();
    rmSync(folder, { recursive: true });
  }
});

test.run();
