/**
 * A host that answers: ARP, ping, IPv6 neighbour discovery and IPv6 ping, for every address anybody asks for.
 *
 *   node dist/examples/ping-responder.js 0000:00:09.0             a PCI device, through VFIO, until Ctrl-C
 *   node dist/examples/ping-responder.js vhost-user:/run/a.sock   a back-end's socket
 *   node dist/examples/ping-responder.js vhost-user:/run/a.sock --server   one that the back-end connects to, as Open vSwitch does
 */

import { parseArgs } from 'node:util';
import { isMainThread } from 'node:worker_threads';
import { type LaunchContext, PingResponder } from 'virtio-pmd/thread';

/** For a device that has no MAC address of its own. */
const SOME_MAC = Uint8Array.of(0x02, 0, 0, 0, 0, 0x01);

/** The packet loop, on a worker; returns how many packets it got and how many answers left. */
export function run({ port, data, stop, idle }: LaunchContext): { received: number; answered: number } {
  const rx = port.rxQueue(0);
  const tx = port.txQueue(0);
  const burst = port.burst(32);
  const responder = new PingResponder(burst.pool, data as Uint8Array);
  const rest = idle('sleep');
  let received = 0;
  let answered = 0;
  while (!stop.requested) {
    const came = rx.receive(burst);
    responder.answer(burst); // What is no request leaves the burst here.
    const left = tx.send(burst);
    burst.free(); // What the ring has no room for: whoever asked will ask again.
    received += came;
    answered += left;
    rest.turn(came);
  }
  return { received, answered };
}

async function main(): Promise<void> {
  // Here and not at the top: the thread loads this file, too.
  const { launch, openPort } = await import('virtio-pmd');
  const options = { 'pci-access': { type: 'string' }, server: { type: 'boolean', default: false } } as const;
  const { positionals, values } = parseArgs({ allowPositionals: true, options });
  const pciAccess = values['pci-access'] as 'vfio' | 'noiommu' | 'sysfs' | undefined;

  await using port = await openPort(positionals[0] ?? 'loopback:', { pciAccess, server: values.server });
  await port.start();
  await using loop = await launch(port, new URL(import.meta.url), { data: port.macAddress ?? SOME_MAC });
  for (const signal of ['SIGINT', 'SIGTERM'] as const) process.once(signal, () => loop.stop());
  port.once('fault', fail).once('fault', () => loop.stop());
  console.log(`answering on ${port.address}`);
  const [{ received, answered }] = (await loop.finished) as [ReturnType<typeof run>];
  console.log(`received ${received}  answered ${answered}`);
}

const fail = (error: unknown): void => {
  console.error(String(error));
  process.exitCode = 1;
};
if (isMainThread) await main().catch(fail);
