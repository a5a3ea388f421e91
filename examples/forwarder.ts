/**
 * A skeleton forwarder: what a port receives leaves on its neighbour, with its MAC addresses swapped.
 *
 *   node dist/examples/forwarder.js loopback:                                         one port: back where it came from
 *   node dist/examples/forwarder.js vhost-user:/run/a.sock vhost-user:/run/b.sock     two ports: from each to the other
 *   node dist/examples/forwarder.js --workers 2 vhost-user:/run/a.sock                a worker for each pair of queues
 */

import { setTimeout as sleep } from 'node:timers/promises';
import { parseArgs } from 'node:util';
import { isMainThread } from 'node:worker_threads';
import {
  createPool,
  type LaunchContext,
  launch,
  openPort,
  type Port,
  sourcePort,
  swapMacs,
  VirtioError,
} from 'virtio-pmd';

/** The packet loop of one worker: it polls its own pair of queues on every port. */
export function run({ ports, index: pair, stop, idle }: LaunchContext): void {
  const ways = ports.map((port, number) => {
    const neighbour = ports[number ^ 1] ?? port;
    return { rx: port.rxQueue(pair), tx: neighbour.txQueue(pair), burst: port.burst(32) };
  });
  const rest = idle('sleep');
  while (!stop.requested) {
    let received = 0;
    for (const { rx, tx, burst } of ways) {
      received += rx.receive(burst);
      swapMacs(burst);
      tx.send(burst);
      burst.free(); // What the neighbour has no room for is dropped.
    }
    rest.turn(received);
  }
}

/** Opens the ports, starts the workers, and prints statistics until Ctrl-C. */
async function main(): Promise<void> {
  const options = { workers: { type: 'string', default: '1' } } as const;
  const { positionals, values } = parseArgs({ allowPositionals: true, options });
  const workers = Number(values.workers);
  const over = new AbortController();
  process.once('SIGINT', () => over.abort());

  // Packets go from port to port without being copied, so all ports share one pool.
  const pool = createPool({ size: 16_384 });
  // An embedded device has nobody behind it: it sends packets of its own.
  const device = { port: sourcePort({ rate: 50_000 }) };
  const ports: Port[] = [];
  try {
    for (const address of positionals.length > 0 ? positionals : ['loopback:']) {
      const port = await openPort(address, { queues: workers, pool, device, signal: over.signal });
      port.on('fault', (error) => over.abort(error));
      ports.push(port);
    }
    for (const port of ports) await port.start();
    const running = await launch(ports, new URL(import.meta.url), { threads: workers });
    running.finished.catch((error: unknown) => over.abort(error));

    while (!over.signal.aborted) {
      await sleep(1000, undefined, { signal: over.signal }).catch(() => undefined);
      for (const port of ports) console.log(describe(port));
    }
    await running.stop();
  } finally {
    for (const port of ports) await port.close();
    pool.memory.close();
  }
  if (over.signal.reason instanceof VirtioError) throw over.signal.reason;
}

function describe(port: Port): string {
  const { rx, tx } = port.statistics();
  const sum = (numbers: number[]) => numbers.reduce((total, number) => total + number, 0).toLocaleString('en-US');
  const received = sum(rx.map((queue) => queue.packets));
  const sent = sum(tx.map((queue) => queue.packets));
  const dropped = sum(tx.map((queue) => queue.ringFull));
  return `${port.address}  received ${received}  sent ${sent}  no room for ${dropped}`;
}

if (isMainThread) {
  await main().catch((error: unknown) => {
    console.error(error instanceof VirtioError ? error.toLine() : error);
    process.exitCode = 1;
  });
}
