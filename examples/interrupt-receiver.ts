/**
 * A receiver that sleeps until a packet comes, polls while there are more, and sleeps again: for links with little traffic.
 *
 *   node dist/examples/interrupt-receiver.js 0000:00:09.0 --count 1000
 */

import { parseArgs } from 'node:util';
import { openPort } from 'virtio-pmd';

/** Bursts between two turns of the event loop, which signals and `link` wait for. */
const BURSTS_A_TURN = 64;

async function main(): Promise<void> {
  const options = { count: { type: 'string', default: 'Infinity' } } as const;
  const { positionals, values } = parseArgs({ allowPositionals: true, options });
  const over = new AbortController();
  for (const signal of ['SIGINT', 'SIGTERM'] as const) process.once(signal, () => over.abort());

  await using port = await openPort(positionals[0] ?? 'loopback:', { interrupts: 'receive' });
  port.on('link', (up) => console.log(`link ${up ? 'up' : 'down'}`));
  port.once('fault', fail).once('fault', () => over.abort());
  await port.start();
  console.log(`waiting on ${port.address}`);

  const rx = port.rxQueue(0);
  const burst = port.burst(32);
  let [received, wakes] = [0, 0];
  while (!over.signal.aborted && received < Number(values.count)) {
    const hasPackets = await rx.waitForPackets({ signal: over.signal }).catch(() => false);
    if (hasPackets) wakes++;
    // An interrupt is for the first packet: the others that wait come without.
    for (let bursts = 0; bursts < BURSTS_A_TURN && rx.receive(burst) > 0; bursts++) {
      received += burst.count;
      burst.free();
    }
  }
  console.log(`received ${received} packets, woken ${wakes} times, processor time ${process.cpuUsage().user / 1e6} s`);
}

const fail = (error: unknown): void => {
  console.error(String(error));
  process.exitCode = 1;
};
await main().catch(fail);
