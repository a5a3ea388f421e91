/**
 * A bridge between a port and the kernel of this machine: what the port receives the tap interface gets, and the other way
 * round. So the programs of a guest keep their sockets while the guest's device is driven from here.
 *
 *   device ◀─▶ port ◀─▶ bridge ◀─▶ embedded device ◀─▶ tap0 ◀─▶ kernel: addresses, routes, sockets
 *
 *   node dist/examples/tap-bridge.js 0000:00:04.0 tap0      as root; ip address add 192.0.2.1/24 dev tap0 goes on from there
 */

import { parseArgs } from 'node:util';
import { isMainThread } from 'node:worker_threads';
import type { LaunchContext } from 'virtio-pmd/thread';

/** The packet loop, on a worker. */
export function run({ ports: [port, kernel], stop, idle }: LaunchContext): void {
  const ways = [
    { rx: port!.rxQueue(0), tx: kernel!.txQueue(0), burst: port!.burst(32) },
    { rx: kernel!.rxQueue(0), tx: port!.txQueue(0), burst: port!.burst(32) },
  ];
  const rest = idle('sleep');
  while (!stop.requested) {
    let moved = 0;
    for (const { rx, tx, burst } of ways) {
      moved += rx.receive(burst); // Behind what waits there.
      tx.send(burst); // What does not fit waits, and what comes after it waits in the receive ring.
    }
    rest.turn(moved);
  }
  for (const { burst } of ways) burst.free();
}

async function main(): Promise<void> {
  // Here and not at the top: the thread loads this file, too.
  const [{ launch, tapPort }, { openPorts }] = await Promise.all([import('virtio-pmd'), import('./open-ports.js')]);
  const options = { 'pci-access': { type: 'string' } } as const;
  const { positionals, values } = parseArgs({ allowPositionals: true, options });
  const [address, name] = positionals;
  if (address === undefined || name === undefined) throw new Error('usage: tap-bridge PORT INTERFACE');
  const pciAccess = values['pci-access'] as 'vfio' | 'noiommu' | 'sysfs' | undefined;

  // The kernel is behind an embedded device, whose port is the tap.
  await using ports = await openPorts([address, 'loopback:'], { pciAccess, device: { port: tapPort({ name }) } });
  for (const port of ports) await port.start();
  await using loop = await launch(ports, new URL(import.meta.url));
  for (const signal of ['SIGINT', 'SIGTERM'] as const) process.once(signal, () => loop.stop());
  for (const port of ports) port.once('fault', fail).once('fault', () => loop.stop());
  console.log(`bridging ${ports[0]!.address} and ${name}`);
  await loop.finished;
  const [fromDevice, fromKernel] = ports.map((port) => port.statistics().rx[0]!.packets);
  console.log(`to the kernel ${fromDevice}  from the kernel ${fromKernel}`);
}

const fail = (error: unknown): void => {
  console.error(String(error));
  process.exitCode = 1;
};
if (isMainThread) await main().catch(fail);
