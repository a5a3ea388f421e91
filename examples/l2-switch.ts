/**
 * A layer-2 forwarder that learns: which port a station is behind it knows from what the station sends; what is for a
 * station that it does not know yet, or for a group, leaves on all other ports.
 *
 *   station A ── port 0 ─┐               ┌─ port 2 ── station C
 *                        ├─ table: A→0 ──┤
 *   station B ── port 1 ─┘         C→2   └─ port 3 ── station D
 *
 *   node dist/examples/l2-switch.js vhost-user:/run/a.sock vhost-user:/run/b.sock vhost-user:/run/c.sock
 */

import { parseArgs } from 'node:util';
import { isMainThread } from 'node:worker_threads';
import { type Burst, type LaunchContext, PacketBytes, type PacketView } from 'virtio-pmd/thread';

const SLOTS = 4096;
const NOWHERE = -1;

/** Where stations are: one slot for each hash, which belongs to whoever was seen last, so that nothing fills up. */
class Stations {
  readonly #high = new Uint16Array(SLOTS);
  readonly #low = new Uint32Array(SLOTS);
  readonly #ports = new Int8Array(SLOTS).fill(NOWHERE);

  learn(high: number, low: number, port: number): void {
    const slot = this.#slot(high, low);
    this.#high[slot] = high;
    this.#low[slot] = low;
    this.#ports[slot] = port;
  }

  find(high: number, low: number): number {
    const slot = this.#slot(high, low);
    return this.#high[slot] === high && this.#low[slot] === low ? this.#ports[slot]! : NOWHERE;
  }

  #slot(high: number, low: number): number {
    return Math.imul(low ^ high, 0x9e37_79b1) >>> 20;
  }
}

/** The packet loop, on a worker; returns how many packets went where their station is known to be, and how many everywhere. */
export function run({ ports, stop, idle }: LaunchContext): { directed: number; flooded: number } {
  const stations = new Stations();
  const members = ports.map((port, number) => ({
    number,
    rx: port.rxQueue(0),
    tx: port.txQueue(0),
    received: port.burst(32),
    /** Every member may have a burst for this one. */
    leaving: port.burst(32 * ports.length),
  }));
  const pool = ports[0]!.pool;
  const [original, copy] = [new PacketBytes(pool), new PacketBytes(pool)];

  const flood = (handle: number, from: number): void => {
    original.move(handle);
    for (const { number, leaving } of members) {
      if (number === from || leaving.allocate(1) === 0) continue;
      if (copy.move(leaving.handles[leaving.count - 1]!).remake(original.length, 0)) {
        copy.copyFrom(original, 0, 0, original.length);
      } else {
        leaving.drop(leaving.count - 1); // Longer than a buffer.
      }
    }
  };
  /** Where a packet is to go, having learned where it comes from; `from` itself means nowhere. */
  const place = (packet: PacketView, from: number): number => {
    if (packet.length < 14) return from;
    if ((packet.u8(6) & 1) === 0) stations.learn(packet.u16(6), packet.u32(8), from);
    return (packet.u8(0) & 1) === 0 ? stations.find(packet.u16(0), packet.u32(2)) : NOWHERE;
  };

  const rest = idle('sleep');
  let [directed, flooded] = [0, 0];
  while (!stop.requested) {
    let work = 0;
    for (const { number: from, rx, received } of members) {
      work += rx.receive(received);
      let stays = 0;
      for (let index = 0; index < received.count; index++) {
        const handle = received.handles[index]!;
        const to = place(received.bytes(index), from);
        if (to !== from && to !== NOWHERE) {
          append(members[to]!.leaving, handle);
          directed++;
          continue;
        }
        if (to === NOWHERE) {
          flood(handle, from);
          flooded++;
        }
        received.handles[stays++] = handle;
      }
      received.count = stays;
      received.free();
    }
    for (const { tx, leaving } of members) {
      if (leaving.count === 0) continue;
      tx.send(leaving);
      leaving.free(); // What a port has no room for is dropped, and counted by it.
    }
    rest.turn(work);
  }
  return { directed, flooded };
}

/** Gives a packet to a burst, which has room for all that one turn brings. */
function append(burst: Burst, handle: number): void {
  burst.handles[burst.count++] = handle;
}

async function main(): Promise<void> {
  // Here and not at the top: the thread loads this file, too.
  const [{ launch }, { openPorts }] = await Promise.all([import('virtio-pmd'), import('./open-ports.js')]);
  const { positionals } = parseArgs({ allowPositionals: true });
  if (positionals.length < 2) throw new Error('usage: l2-switch PORT PORT…');

  await using ports = await openPorts(positionals);
  for (const port of ports) await port.start();
  await using loop = await launch(ports, new URL(import.meta.url));
  for (const signal of ['SIGINT', 'SIGTERM'] as const) process.once(signal, () => loop.stop());
  for (const port of ports) port.once('fault', fail).once('fault', () => loop.stop());
  console.log(`switching between ${ports.map((port) => port.address).join(', ')}`);
  const [{ directed, flooded }] = (await loop.finished) as [ReturnType<typeof run>];
  console.log(`directed ${directed}  flooded ${flooded}`);
}

const fail = (error: unknown): void => {
  console.error(String(error));
  process.exitCode = 1;
};
if (isMainThread) await main().catch(fail);
