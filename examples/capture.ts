/**
 * Writes what a port receives into a capture file, until Ctrl-C or a number of packets.
 *
 *   node dist/examples/capture.js 0000:00:09.0 packets.pcap --count 1000
 */

import { parseArgs } from 'node:util';
import { isMainThread } from 'node:worker_threads';
import { type LaunchContext, PcapWriter } from 'virtio-pmd/thread';

interface Order {
  readonly path: string;
  readonly count: number;
  /** Bytes of each packet that are kept. */
  readonly snapLength: number;
}

/** The packet loop, on a worker; returns how many packets are in the file. */
export function run({ port, data, stop, idle }: LaunchContext): number {
  const { path, count, snapLength } = data as Order;
  const rx = port.rxQueue(0);
  const burst = port.burst(32);
  using file = PcapWriter.create(path, { snapLength });
  const rest = idle('sleep');
  let written = 0;
  while (!stop.requested && written < count) {
    const received = rx.receive(burst);
    const now = BigInt(Date.now()) * 1_000_000n;
    for (let index = 0; index < received && written < count; index++, written++) {
      file.write(burst.bytes(index).copyPacket(), now);
    }
    burst.free();
    rest.turn(received);
  }
  return written;
}

async function main(): Promise<void> {
  // Here and not at the top: the thread loads this file, too.
  const { launch, openPort } = await import('virtio-pmd');
  const options = {
    count: { type: 'string', default: 'Infinity' },
    'snap-length': { type: 'string', default: '262144' },
    'pci-access': { type: 'string' },
  } as const;
  const { positionals, values } = parseArgs({ allowPositionals: true, options });
  const [address, path] = positionals;
  if (address === undefined || path === undefined) throw new Error('usage: capture PORT FILE [--count PACKETS]');
  const pciAccess = values['pci-access'] as 'vfio' | 'noiommu' | 'sysfs' | undefined;
  const order: Order = { path, count: Number(values.count), snapLength: Number(values['snap-length']) };

  await using port = await openPort(address, { pciAccess });
  await port.start();
  await using loop = await launch(port, new URL(import.meta.url), { data: order });
  for (const signal of ['SIGINT', 'SIGTERM'] as const) process.once(signal, () => loop.stop());
  port.once('fault', fail).once('fault', () => loop.stop());
  console.log(`capturing on ${port.address}`);
  const [written] = await loop.finished;
  const { rx } = port.statistics();
  console.log(`${written} packets in ${path}  received ${rx[0]!.packets}`);
}

const fail = (error: unknown): void => {
  console.error(String(error));
  process.exitCode = 1;
};
if (isMainThread) await main().catch(fail);
