/**
 * A skeleton forwarder: what a port receives leaves on its neighbour, with its MAC addresses swapped.
 *
 *   node dist/examples/forwarder.js loopback:                                       back where it came from
 *   node dist/examples/forwarder.js vhost-user:/run/a.sock vhost-user:/run/b.sock   from each to the other
 */

import { once } from 'node:events';
import { parseArgs } from 'node:util';
import { isMainThread } from 'node:worker_threads';
import type { Port } from 'virtio-pmd';
import { type LaunchContext, swapMacs } from 'virtio-pmd/thread';

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

/** Opens the ports, starts the workers, and prints statistics every second until Ctrl-C. */
async function main(addresses: readonly string[], queues: number): Promise<void> {
  // Here and not at the top: the thread loads this file, too.
  const [{ launch, sourcePort }, { openPorts }] = await Promise.all([import('virtio-pmd'), import('./open-ports.js')]);
  const over = new AbortController();
  const ended = once(over.signal, 'abort');
  process.once('SIGINT', () => over.abort('SIGINT'));
  // An embedded device has nobody behind it: it sends packets of its own.
  const device = { port: sourcePort({ rate: 50_000 }) };
  {
    await using ports = await openPorts(addresses, { queues, device, signal: over.signal });
    for (const port of ports) port.on('fault', (error) => over.abort(error));
    for (const port of ports) await port.start();
    const workers = await launch(ports, new URL(import.meta.url), { threads: queues });
    const timer = setInterval(report, 1000, ports);
    await Promise.race([ended, workers.finished]).finally(() => clearInterval(timer));
    await workers.stop();
    report(ports);
  }
  if (over.signal.reason instanceof Error) throw over.signal.reason;
}

/** Prints a line a port, with a number for each of its queues. */
function report(ports: readonly Port[]): void {
  for (const port of ports) {
    const { rx, tx } = port.statistics();
    const received = rx.map((queue) => queue.packets);
    const [sent, noRoom] = [tx.map((queue) => queue.packets), tx.map((queue) => queue.ringFull)];
    console.log(`${port.address}  received ${received}  sent ${sent}  no room for ${noRoom}`);
  }
}

if (isMainThread) {
  const options = { workers: { type: 'string', default: '1' } } as const;
  const { positionals, values } = parseArgs({ allowPositionals: true, options });
  await main(positionals, Number(values.workers)).catch((error: unknown) => {
    console.error(String(error));
    process.exitCode = 1;
  });
}
