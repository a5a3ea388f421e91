/** Traffic from the host to a guest that goes on while the guest is moved: ping, marked packets, and a TCP transfer. */

import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import * as assert from 'uvu/assert';

import { type Shell, startReceiving, sumOfBlocks, TCP_PORT, untilReceiving } from './guest-checks.js';
import type { HostEnd } from './guest-host-end.js';

/**
 * What marked packets hold again and again: the mark, the packet's number, the piece's. They begin behind what a guest's
 * processor copies: a packet's first bytes, and those that go back with "port unreachable".
 */
export const MARK = Buffer.from('moved with guest');
export const PIECE_BYTES = 32;
const SENDER = `
import os, socket, struct, sys, time
address, stop, mark, pause = sys.argv[1], sys.argv[2], sys.argv[3].encode(), float(sys.argv[4])
sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
number = 0
while not os.path.exists(stop):
    pieces = (mark + struct.pack("<II", number, piece) + bytes(8) for piece in range(23))
    sender.sendto(bytes(640) + b"".join(pieces), (address, 9))
    number += 1
    time.sleep(pause)
`;

export const PING_MS = 100;
/** Answers before the guest is moved and after it: the ping is in full swing at either time. */
const ENOUGH_PINGS = 10;
/** Traffic has begun when so much has come: over TCP, and of marked packets. */
const BEGUN_BYTES = 100_000;
const BEGUN_PACKETS = 20;
/** Megabytes at most. */
const MOST_BLOCKS = 2000;
const WAIT_MS = 60_000;
const MOST_MS = 380_000;

export interface TrafficOptions {
  /** Of marked packets. */
  readonly packetsPerSecond: number;
  /** Whether there is a TCP transfer too; the guest's files have `data` then. */
  readonly hasTransfer: boolean;
}

export class GuestTraffic {
  readonly #folder: string;
  /** Blocks that were sent over TCP, when it is over. */
  readonly #sent: Promise<number> | undefined;
  readonly #marked: Promise<string>;

  private constructor(folder: string, sent: Promise<number> | undefined, marked: Promise<string>) {
    this.#folder = folder;
    this.#sent = sent;
    this.#marked = marked;
    // Awaited further down: one that fails before must not end the process, and leave machines running.
    for (const later of [sent, marked]) later?.catch(() => {});
  }

  /** Resolves when all of it flows; what it keeps is in `folder`. It ends with the host, or by `finish`. */
  static async start(
    host: HostEnd,
    guest: Shell,
    address: string,
    folder: string,
    options: TrafficOptions,
  ): Promise<GuestTraffic> {
    await host.run(`ping -i ${PING_MS / 1000} ${address} >${join(folder, 'pings')} 2>&1 &`);
    const transfer = options.hasTransfer ? await startTransfer(host, guest, address, folder) : undefined;
    const pause = 1 / options.packetsPerSecond;
    const words = `${address} ${join(folder, 'stop')} '${MARK.toString()}' ${pause}`;
    const marked = host.run(`/usr/bin/python3 -c '${SENDER}' ${words}`, { timeoutMs: MOST_MS });
    const traffic = new GuestTraffic(folder, transfer?.sent, marked);
    const received = 'cat /sys/class/net/eth0/statistics/rx_bytes';
    const refused = "awk '/^Udp: [0-9]/ {print $3}' /proc/net/snmp";
    const least = options.hasTransfer ? BEGUN_BYTES : 0;
    const begun = `[ $(${received}) -gt ${least} ] && [ $(${refused}) -gt ${BEGUN_PACKETS} ]`;
    await guest.run(`for i in $(seq 600); do ${begun} && exit 0; usleep 50000; done; ${received}; ${refused}; exit 1`, {
      timeoutMs: WAIT_MS,
    });
    await traffic.morePings();
    return traffic;
  }

  /** Resolves when ten more pings were answered. */
  async morePings(): Promise<void> {
    const wanted = this.#answered.length + ENOUGH_PINGS;
    for (const deadline = Date.now() + WAIT_MS; this.#answered.length < wanted; await sleep(20)) {
      if (Date.now() > deadline) throw new Error(`no ${ENOUGH_PINGS} more answers to ping within ${WAIT_MS} ms`);
    }
  }

  /** How many before the last answered ping were not answered. */
  get lostPings(): number {
    const answered = new Set(this.#answered);
    return Math.max(...answered) + 1 - answered.size;
  }

  /** Ends it; fails where what the guest received over TCP is not what was sent. */
  async finish(guest: Shell): Promise<void> {
    writeFileSync(join(this.#folder, 'stop'), '');
    await this.#marked;
    if (this.#sent === undefined) return;
    const blocks = await this.#sent;
    await guest.run('for i in $(seq 900); do [ -s /tmp/sum ] && exit 0; usleep 100000; done; exit 1', {
      timeoutMs: 120_000,
    });
    const arrived = await guest.run('cat /tmp/sum');
    assert.is(arrived.split(' ')[0], sumOfBlocks(blocks), `${blocks} MB to the guest`);
  }

  /** Numbers of the pings that were answered, in that order. */
  get #answered(): number[] {
    const said = readFileSync(join(this.#folder, 'pings'), 'latin1');
    return [...said.matchAll(/seq=(\d+)/g)].map(([, number]) => Number(number));
  }
}

/** Begins to send blocks over TCP until there is a file `stop`; `sent` resolves to how many. */
async function startTransfer(
  host: HostEnd,
  guest: Shell,
  address: string,
  folder: string,
): Promise<{ readonly sent: Promise<number> }> {
  await guest.run(startReceiving('/tmp/sum'));
  await guest.run(untilReceiving);
  const [count, stop] = [join(folder, 'count'), join(folder, 'stop')];
  const sent = host.run(
    `send() {
       i=0
       while [ ! -e ${stop} ] && [ $i -lt ${MOST_BLOCKS} ]; do cat $DATA || break; i=$((i + 1)); done
       echo $i >${count}
     }
     send | nc ${address} ${TCP_PORT}`,
    { timeoutMs: MOST_MS },
  );
  return { sent: sent.then(() => Number(readFileSync(count, 'latin1'))) };
}
