/**
 * A program for guests: finds a neighbour by ARP and pings it through our driver; prints how many answers were right.
 *
 *   node guest-pinger.js PORT OWN_ADDRESS ADDRESS COUNT
 */

import { isMainThread } from 'node:worker_threads';

import { type AttachedPort, type LaunchContext, launch, openPort, type Port } from 'virtio-pmd';
import { frame, ipv4, sealed, word } from './echo-packets.js';

interface Order {
  readonly mac: readonly number[];
  readonly own: readonly number[];
  readonly address: readonly number[];
  readonly count: number;
}

const BROADCAST = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff];
const ARP = 0x0806;
const IPV4 = 0x0800;
const REPLY_MS = 30_000;

/** An echo message whose payload says which one it is. */
const echo = (type: number, number: number): readonly number[] =>
  sealed(
    [type, 0, 0, 0, 0x12, 0x34, ...word(number), ...Array.from({ length: 400 }, (_, at) => (at * number) & 0xff)],
    2,
  );

const equals = (bytes: Uint8Array, at: number, wanted: readonly number[]): boolean =>
  wanted.every((byte, index) => bytes[at + index] === byte);

/** What a frame is answered with: a neighbour is asked now and then whether it is still there (RFC 1122 §2.3.2.1). */
function answerTo(bytes: Uint8Array, { mac, own }: Order): Uint8Array | undefined {
  if (!equals(bytes, 12, word(ARP)) || !equals(bytes, 20, [0, 1]) || !equals(bytes, 38, own)) return undefined;
  const asker = [...bytes.subarray(22, 32)];
  return frame(ARP, [0, 1, 8, 0, 6, 4, 0, 2, ...mac, ...own, ...asker], [], asker.slice(0, 6), mac);
}

function send(port: AttachedPort, bytes: Uint8Array): void {
  const burst = port.burst(1);
  burst.allocate(1);
  burst.bytes(0).fill(bytes);
  port.txQueue(0).send(burst);
  burst.free();
}

/** Sends a frame and returns what `match` makes of the first that it takes. */
function ask<T>(
  context: LaunchContext,
  what: string,
  bytes: Uint8Array,
  match: (frame: Uint8Array) => T | undefined,
): T {
  const { port } = context;
  const [rx, burst] = [port.rxQueue(0), port.burst(32)];
  const until = performance.now() + REPLY_MS;
  const rest = context.idle('sleep');
  send(port, bytes);
  while (!context.stop.requested && performance.now() < until) {
    const came = rx.receive(burst);
    let found: T | undefined;
    for (let index = 0; index < came; index++) {
      const packet = burst.bytes(index).copyPacket();
      const answer = answerTo(packet, context.data as Order);
      if (answer !== undefined) send(port, answer);
      found ??= match(packet);
    }
    burst.free();
    if (found !== undefined) return found;
    rest.turn(came);
  }
  throw new Error(`no answer to ${what} within ${REPLY_MS} ms`);
}

/** On a worker; returns how many pings were answered as they should be. */
export function run(context: LaunchContext): number {
  const { mac, own, address, count } = context.data as Order;
  const arp = [0, 1, 8, 0, 6, 4, 0, 1, ...mac, ...own, 0, 0, 0, 0, 0, 0, ...address];
  const neighbour = ask(context, 'the ARP request', frame(ARP, arp, [], BROADCAST, mac), (bytes) => {
    const isReply = equals(bytes, 12, word(ARP)) && equals(bytes, 20, [0, 2]) && equals(bytes, 28, address);
    return isReply ? [...bytes.subarray(22, 28)] : undefined;
  });
  for (let number = 1; number <= count; number++) {
    const reply = echo(0, number);
    const request = frame(IPV4, ipv4(1, echo(8, number), own, address), [], neighbour, mac);
    ask(context, `ping ${number} of ${count}`, request, (bytes) => {
      const isReply = equals(bytes, 0, mac) && equals(bytes, 26, address) && equals(bytes, 30, own);
      return isReply && equals(bytes, 34, reply) ? true : undefined;
    });
  }
  return count;
}

async function main([name = '', own = '', address = '', count = '']: readonly string[]): Promise<void> {
  await using port: Port = await openPort(name);
  await port.start();
  const octets = (text: string): number[] => text.split('.').map(Number);
  const order: Order = { mac: [...port.macAddress!], own: octets(own), address: octets(address), count: Number(count) };
  await using loop = await launch(port, new URL(import.meta.url), { data: order });
  const [answered] = await loop.finished;
  console.log(`answered ${answered} of ${count}`);
}

if (isMainThread) await main(process.argv.slice(2));
