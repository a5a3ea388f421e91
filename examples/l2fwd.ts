/**
 * A layer-2 forwarder between two ports, as DPDK's l2fwd: what one receives the other sends, from the sender's own MAC
 * address to 02:00:00:00:00:0N. Packets are sent in bursts; an incomplete burst waits until its time is over, 100 us.
 *
 *   node dist/examples/l2fwd.js 0000:00:09.0 0000:00:0a.0 --period 10
 */

import { parseArgs } from 'node:util';
import { isMainThread } from 'node:worker_threads';
import type { Port } from 'virtio-pmd';
import { type LaunchContext, macForward } from 'virtio-pmd/thread';

interface Order {
  /** The MAC address of each port. */
  readonly macs: readonly Uint8Array[];
  readonly updatesMacs: boolean;
}

/** Bursts leave when they are this full, or this many milliseconds old. */
const FULL = 32;
const DRAIN_MS = 0.1;

/** Where port `number` sends packets to. */
const destinationOf = (number: number): Uint8Array => Uint8Array.of(0x02, 0, 0, 0, 0, number);

/** The packet loop, on a worker. */
export function run({ ports, data, stop, idle }: LaunchContext): void {
  const { macs, updatesMacs } = data as Order;
  const ways = ports.map((port, number) => ({
    rx: port.rxQueue(0),
    tx: ports[1 - number]!.txQueue(0),
    burst: port.burst(2 * FULL),
    source: macs[1 - number]!,
    destination: destinationOf(1 - number),
    drainAt: 0,
  }));
  const rest = idle('sleep');
  while (!stop.requested) {
    let work = 0;
    for (const way of ways) {
      const { rx, tx, burst } = way;
      const waiting = burst.count;
      work += rx.receive(burst); // Behind what waits there.
      if (updatesMacs) macForward(burst, way.source, way.destination, waiting);
      if (burst.count === 0) continue;
      if (waiting === 0) way.drainAt = performance.now() + DRAIN_MS;
      if (burst.count < FULL && performance.now() < way.drainAt) continue;
      work += tx.send(burst);
      burst.free(); // What the neighbour has no room for is dropped, and counted by it.
    }
    rest.turn(work);
  }
  for (const { burst } of ways) burst.free();
}

/** Prints a block as DPDK's l2fwd does, a line a port. */
function report(ports: readonly Port[]): void {
  for (const [number, port] of ports.entries()) {
    const { rx, tx } = port.statistics();
    const dropped = tx[0]!.ringFull;
    console.log(
      `port ${number} ${port.address}  sent ${tx[0]!.packets}  received ${rx[0]!.packets}  dropped ${dropped}`,
    );
  }
}

async function main(): Promise<void> {
  // Here and not at the top: the thread loads this file, too.
  const [{ launch }, { openPorts }] = await Promise.all([import('virtio-pmd'), import('./open-ports.js')]);
  const options = {
    period: { type: 'string', default: '10' },
    'no-mac-updating': { type: 'boolean', default: false },
    'pci-access': { type: 'string' },
  } as const;
  const { positionals, values } = parseArgs({ allowPositionals: true, options });
  if (positionals.length !== 2) throw new Error('usage: l2fwd PORT PORT [--period SECONDS] [--no-mac-updating]');
  const pciAccess = values['pci-access'] as 'vfio' | 'noiommu' | 'sysfs' | undefined;

  await using ports = await openPorts(positionals, { pciAccess });
  for (const port of ports) await port.start();
  const macs = ports.map((port, number) => port.macAddress ?? destinationOf(number));
  const order: Order = { macs, updatesMacs: !values['no-mac-updating'] };
  await using loop = await launch(ports, new URL(import.meta.url), { data: order });
  for (const signal of ['SIGINT', 'SIGTERM'] as const) process.once(signal, () => loop.stop());
  for (const port of ports) port.once('fault', fail).once('fault', () => loop.stop());
  const timer = setInterval(report, Number(values.period) * 1000, ports);
  console.log(`forwarding between ${ports.map((port) => port.address).join(' and ')}`);
  await loop.finished.finally(() => clearInterval(timer));
  report(ports);
}

const fail = (error: unknown): void => {
  console.error(String(error));
  process.exitCode = 1;
};
if (isMainThread) await main().catch(fail);
