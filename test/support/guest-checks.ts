/** What tests do in guests, of either kind. */

import { createHash } from 'node:crypto';
import * as assert from 'uvu/assert';

import type { GuestEnd, GuestRunOptions } from './guest-agent.js';

/** Something with a shell: a virtual machine or user-mode Linux. */
export interface Shell {
  run(script: string, options?: GuestRunOptions): Promise<string>;
  tryRun(script: string, options?: GuestRunOptions): Promise<GuestEnd>;
}

export const NETWORK = '10.77.0.';
/** Nobody has it: `icmpecho` answers for any address. */
export const ANYBODY = `${NETWORK}200`;

/** Gives a network card its address and waits until it carries packets. */
export async function bringUp(guest: Shell, address: string, card = 'eth0'): Promise<void> {
  await guest.run(`
    ip link set lo up
    ip link set ${card} up
    ip address add ${address}/24 dev ${card}
    for i in $(seq 100); do [ "$(cat /sys/class/net/${card}/carrier 2>/dev/null)" = 1 ] && exit 0; usleep 50000; done
    ip address; exit 1`);
}

export interface PingOptions {
  readonly count?: number;
  /** Bytes behind the ICMP header. */
  readonly bytes?: number;
  /** How many may get no answer. Default 0. */
  readonly mayLose?: number;
}

/** Pings; fails where more than `mayLose` answers are missing, or one comes twice. */
export async function assertPings(guest: Shell, address: string, options: PingOptions = {}): Promise<void> {
  const { count = 5, bytes = 56, mayLose = 0 } = options;
  const command = `ping -c ${count} -i 0.1 -W 10 -s ${bytes} ${address}`;
  const { output } = await guest.tryRun(command, { timeoutMs: 20_000 + count * 1000 });
  const [, sent, received] = /(\d+) packets transmitted, (\d+) packets received/.exec(output) ?? [];
  assert.is(Number(sent), count, output);
  assert.ok(Number(received) >= count - mayLose, output);
  assert.not.match(output, /duplicates|wrong data/);
}

/** Value of one of the guest's own counters of a network card. */
export const cardCounter = async (guest: Shell, name: string, card = 'eth0'): Promise<number> =>
  Number(await guest.run(`cat /sys/class/net/${card}/statistics/${name}`));

const BLOCK_BYTES = 1 << 20;
/** Where transfers are received. */
export const TCP_PORT = 7001;

/** A block of bytes that look random and are the same each time: guests whose tests transfer data have it as `/data`. */
export const transferData = (): Buffer => {
  const block = Buffer.alloc(BLOCK_BYTES);
  for (let offset = 0; offset < BLOCK_BYTES; offset += 32) {
    createHash('sha256').update(String(offset)).digest().copy(block, offset);
  }
  return block;
};

/** The script that takes one connection and leaves the sum of all that comes in a file, in the background. */
export const startReceiving = (file: string): string => `(${receive}) >${file} 2>&1 &`;

/** The script that waits until what `startReceiving` started takes a connection. */
export const untilReceiving = `
  for i in $(seq 1000); do netstat -ltn | grep -q ':${TCP_PORT} ' && exit 0; usleep 20000; done; netstat -ltn; exit 1`;

/** Its input stays open: at the end of it, nc would shut its side down, and the sender's would leave at once. */
const receive = `hold=$(mktemp -u); mkfifo $hold; exec 4<>$hold; rm $hold; nc -l -p ${TCP_PORT} <&4 | md5sum`;

/** Sends so many megabytes; resolves to their sum when the other end has closed. */
export async function startSending(from: Shell, address: string, megabytes: number): Promise<string> {
  // The listener may not be there yet.
  await from.run(
    `send() { for i in $(seq ${megabytes}); do cat "\${DATA:-/data}"; done; }
     for try in $(seq 200); do send 2>/dev/null | nc ${address} ${TCP_PORT} 2>/tmp/nc.$$ && exit 0; usleep 100000; done
     cat /tmp/nc.$$; exit 1`,
    { timeoutMs: transferMs(megabytes) },
  );
  return sumOfBlocks(megabytes);
}

/** MD5 of so many times `transferData`, a megabyte each. */
export function sumOfBlocks(count: number): string {
  const block = transferData();
  const hash = createHash('md5');
  for (let done = 0; done < count; done++) hash.update(block);
  return hash.digest('hex');
}

const transferMs = (megabytes: number): number => 30_000 + megabytes * 2000;

/**
 * Sends so many megabytes over TCP; fails where not all of them arrive as they were sent.
 *
 * @returns megabytes a second, of the whole with its checksum
 */
export async function assertTransfers(from: Shell, to: Shell, address: string, megabytes: number): Promise<number> {
  const began = performance.now();
  const [arrived, sum] = await Promise.all([
    to.run(receive, { timeoutMs: transferMs(megabytes) }),
    startSending(from, address, megabytes),
  ]);
  assert.is(arrived.split(' ')[0], sum, `${megabytes} MB to ${address}`);
  return megabytes / ((performance.now() - began) / 1000);
}

/** Fails where the guest's kernel complained, with its words. */
export async function assertQuietKernel(guest: Shell): Promise<void> {
  const { output } = await guest.tryRun(
    "dmesg | grep -E 'BUG:|Call Trace|WARNING:|virtio.*(fail|error)|(NETDEV|TX) (WATCHDOG|timeout)'",
  );
  assert.is(output, '');
}
