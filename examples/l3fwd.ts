/**
 * A layer-3 forwarder: an IPv4 packet leaves on the port of the longest prefix that its destination is in, with one hop less
 * to live, for the next hop's MAC address.
 *
 *   10.0.0.0/24 ── port 0 ── check, look up, TTL − 1 ── port 1 ── 10.0.1.0/24, and all else by 0.0.0.0/0
 *
 *   node dist/examples/l3fwd.js vhost-user:/run/a.sock vhost-user:/run/b.sock \
 *     --route 10.0.0.0/24=0,02:00:00:00:00:0a --route 0.0.0.0/0=1,02:00:00:00:00:0b
 */

import { parseArgs } from 'node:util';
import { isMainThread } from 'node:worker_threads';
import { type LaunchContext, PacketBytes } from 'virtio-pmd/thread';
import { parseRoute, type Route, RouteTable } from './route-table.js';

interface Order {
  readonly routes: readonly Route[];
  /** The MAC address of each port. */
  readonly macs: readonly Uint8Array[];
}

/** Whether this is an IPv4 packet in order, that may live on (RFC 1812 §5.2.2, §5.3.1). */
function mayGoOn(packet: PacketBytes): boolean {
  if (packet.length < 34 || packet.u16(12) !== 0x0800) return false;
  const version = packet.u8(14);
  const headerBytes = (version & 0x0f) * 4;
  const bytes = packet.u16(16);
  if (version >>> 4 !== 4 || headerBytes < 20 || bytes < headerBytes || bytes + 14 > packet.length) return false;
  return packet.sum(14, headerBytes) === 0xffff && packet.u8(22) > 1;
}

/** Takes a hop off, and off the header's checksum with it (RFC 1624). */
function takeHop(packet: PacketBytes): void {
  packet.setU8(22, packet.u8(22) - 1);
  const sum = packet.u16(24) + 0x0100;
  packet.setU16(24, (sum & 0xffff) + (sum >>> 16));
}

/** The packet loop, on a worker; returns how many packets each route had, and how many none. */
export function run({ ports, data, stop, idle }: LaunchContext): { taken: Float64Array; dropped: number } {
  const { routes, macs } = data as Order;
  const table = new RouteTable(routes);
  const headers = routes.map(({ port, nextHop }) => [...nextHop, ...macs[port]!]);
  const ways = ports.map((port) => ({
    rx: port.rxQueue(0),
    tx: port.txQueue(0),
    leaving: port.burst(32 * ports.length),
  }));
  const received = ports[0]!.burst(32);
  const packet = new PacketBytes(received.pool);
  const taken = new Float64Array(routes.length);
  const rest = idle('sleep');
  let dropped = 0;
  while (!stop.requested) {
    let work = 0;
    for (const { rx } of ways) {
      work += rx.receive(received);
      let kept = 0;
      for (let index = 0; index < received.count; index++) {
        const handle = received.handles[index]!;
        const route = mayGoOn(packet.move(handle)) ? table.find(packet.u32(30)) : -1;
        if (route < 0) {
          received.handles[kept++] = handle;
          continue;
        }
        takeHop(packet);
        const header = headers[route]!;
        for (let at = 0; at < 12; at++) packet.setU8(at, header[at]!);
        const { leaving } = ways[routes[route]!.port]!;
        leaving.handles[leaving.count++] = handle;
        taken[route]!++;
      }
      received.count = kept;
      received.free();
      dropped += kept;
    }
    for (const { tx, leaving } of ways) {
      if (leaving.count === 0) continue;
      tx.send(leaving);
      leaving.free();
    }
    rest.turn(work);
  }
  return { taken, dropped };
}

async function main(): Promise<void> {
  // Here and not at the top: the thread loads this file, too.
  const [{ launch }, { openPorts }] = await Promise.all([import('virtio-pmd'), import('./open-ports.js')]);
  const options = { route: { type: 'string', multiple: true } } as const;
  const { positionals, values } = parseArgs({ allowPositionals: true, options });
  const texts = values.route ?? [];
  const routes = texts.map((text) => parseRoute(text, positionals.length));
  if (routes.length === 0) throw new Error('usage: l3fwd PORT… --route PREFIX/BITS=PORT,MAC…');

  await using ports = await openPorts(positionals);
  for (const port of ports) await port.start();
  const macs = ports.map((port, number) => port.macAddress ?? Uint8Array.of(0x02, 0, 0, 0, 0, number));
  await using loop = await launch(ports, new URL(import.meta.url), { data: { routes, macs } satisfies Order });
  for (const signal of ['SIGINT', 'SIGTERM'] as const) process.once(signal, () => loop.stop());
  for (const port of ports) port.once('fault', fail).once('fault', () => loop.stop());
  console.log(`routing between ${ports.map((port) => port.address).join(', ')}`);
  const [{ taken, dropped }] = (await loop.finished) as [ReturnType<typeof run>];
  for (const [number, packets] of taken.entries()) console.log(`route ${texts[number]}  packets ${packets}`);
  console.log(`dropped ${dropped}`);
}

const fail = (error: unknown): void => {
  console.error(String(error));
  process.exitCode = 1;
};
if (isMainThread) await main().catch(fail);
