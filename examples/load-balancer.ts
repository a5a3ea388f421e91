/**
 * A load balancer: one thread has the ports and gives each packet to the worker that has its flow, by a hash over addresses
 * and ports which is the same in both directions; what the worker has looked at leaves on the other port. Packets of a flow
 * stay in order.
 *
 *                      ┌─ ring ─▶ worker 0 ─▶ ring ─┐
 *   port 0 ─▶ hash ────┼─ ring ─▶ worker 1 ─▶ ring ─┼──▶ port 1     and from port 1 to port 0
 *                      └─ ring ─▶ worker 2 ─▶ ring ─┘
 *
 *   node dist/examples/load-balancer.js vhost-user:/run/a.sock vhost-user:/run/b.sock --workers 3
 */

import { parseArgs } from 'node:util';
import { isMainThread } from 'node:worker_threads';
import { type LaunchContext, PacketView, SpscRing } from 'virtio-pmd/thread';

/** Of each worker and each port: the ring of packets to look at, and that of those to be sent there. */
type Order = readonly (readonly { readonly todo: SharedArrayBuffer; readonly done: SharedArrayBuffer }[])[];

/** Thread 0 has the ports; the others are the workers. */
export const run = (context: LaunchContext): unknown => (context.index === 0 ? balance(context) : work(context));

const mix = (hash: number, word: number): number => {
  const mixed = Math.imul(word ^ (word >>> 16), 0x85eb_ca6b);
  return hash ^ mixed ^ (mixed >>> 13);
};

/**
 * A number for the flow of a packet. What goes back has the same one: both ends are mixed in by exclusive or. The hash of a
 * device (HASH_REPORT) would not do: by Toeplitz the two directions have different ones.
 */
function flowOf(packet: PacketView): number {
  if (packet.length < 34) return 0;
  const type = packet.u16(12);
  const isIpv4 = type === 0x0800;
  const end = isIpv4 ? 34 : 54;
  if ((!isIpv4 && type !== 0x86dd) || packet.length < end) return 0;
  const protocol = packet.u8(isIpv4 ? 23 : 20);
  let hash = protocol;
  for (let at = isIpv4 ? 26 : 22; at < end; at += 4) hash = mix(hash, packet.u32(at));
  const ports = isIpv4 ? 14 + (packet.u8(14) & 0x0f) * 4 : end;
  // Of fragments only the first has ports: they go by addresses alone.
  const isWhole = !isIpv4 || (packet.u16(20) & 0x3fff) === 0;
  const hasPorts = (protocol === 6 || protocol === 17) && isWhole && packet.length >= ports + 4;
  return hasPorts ? mix(mix(hash, packet.u16(ports)), packet.u16(ports + 2)) : hash;
}

function balance({ ports, data, stop, idle }: LaunchContext): void {
  const rings = (data as Order).map((ways) =>
    ways.map(({ todo, done }) => ({ todo: new SpscRing(todo), done: new SpscRing(done) })),
  );
  const ways = ports.map((port, number) => ({
    number,
    rx: port.rxQueue(0),
    tx: (ports[number ^ 1] ?? port).txQueue(0),
    burst: port.burst(32),
  }));
  const rest = idle('sleep');
  while (!stop.requested) {
    let moved = 0;
    for (const { number, rx, tx, burst } of ways) {
      moved += rx.receive(burst);
      for (let index = 0; index < burst.count; index++) {
        const flow = flowOf(burst.bytes(index)) >>> 0;
        // It has room: the rings hold all packets there are.
        rings[flow % rings.length]![number]!.todo.push(burst.handles, index, 1);
      }
      burst.count = 0;
      for (const worker of rings) {
        burst.count = worker[number]!.done.pop(burst.handles, 0, burst.capacity);
        moved += burst.count;
        if (burst.count > 0) tx.send(burst);
        burst.free(); // What the port has no room for is dropped, and counted by it.
      }
    }
    rest.turn(moved);
  }
}

/** Looks at packets: here it counts those of each flow. What an application does takes this place. */
function work({ port, data, index, stop, idle }: LaunchContext): { packets: number; flows: number } {
  const ways = (data as Order)[index - 1]!.map(({ todo, done }) => ({
    todo: new SpscRing(todo),
    done: new SpscRing(done),
  }));
  const handles = new Uint32Array(32);
  const view = new PacketView(port.pool);
  const flows = new Map<number, number>();
  const rest = idle('sleep');
  let packets = 0;
  while (!stop.requested) {
    let count = 0;
    for (const { todo, done } of ways) {
      const taken = todo.pop(handles, 0, handles.length);
      for (let at = 0; at < taken; at++) {
        const flow = flowOf(view.move(handles[at]!));
        flows.set(flow, (flows.get(flow) ?? 0) + 1);
      }
      done.push(handles, 0, taken);
      count += taken;
    }
    packets += count;
    rest.turn(count);
  }
  return { packets, flows: flows.size };
}

async function main(): Promise<void> {
  // Here and not at the top: the threads load this file, too.
  const [{ launch }, { openPorts }] = await Promise.all([import('virtio-pmd'), import('./open-ports.js')]);
  const options = { workers: { type: 'string', default: '2' } } as const;
  const { positionals, values } = parseArgs({ allowPositionals: true, options });
  if (positionals.length === 0 || positionals.length > 2)
    throw new Error('usage: load-balancer PORT [PORT] [--workers N]');

  await using ports = await openPorts(positionals);
  for (const port of ports) await port.start();
  const capacity = 2 ** Math.ceil(Math.log2(ports[0]!.pool.size));
  const ring = (): SharedArrayBuffer => SpscRing.create(capacity).memory;
  const order: Order = Array.from({ length: Number(values.workers) }, () =>
    ports.map(() => ({ todo: ring(), done: ring() })),
  );
  await using loop = await launch(ports, new URL(import.meta.url), { threads: order.length + 1, data: order });
  for (const signal of ['SIGINT', 'SIGTERM'] as const) process.once(signal, () => loop.stop());
  for (const port of ports) port.once('fault', fail).once('fault', () => loop.stop());
  console.log(`balancing ${ports.map((port) => port.address).join(' and ')} over ${order.length} workers`);
  const [, ...workers] = (await loop.finished) as [undefined, ...ReturnType<typeof work>[]];
  for (const [number, { packets, flows }] of workers.entries()) {
    console.log(`worker ${number}  packets ${packets}  flows ${flows}`);
  }
}

const fail = (error: unknown): void => {
  console.error(String(error));
  process.exitCode = 1;
};
if (isMainThread) await main().catch(fail);
