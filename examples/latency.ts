/**
 * Records the latency of each packet: sends packets at a rate, each with its number, and notes when it comes back.
 *
 *   stamp ─▶ port ─▶ … whatever brings packets back … ─▶ port ─▶ latency of packet N ─▶ percentiles, and a line in a file
 *
 *   node dist/examples/latency.js                                          the embedded device, which echoes
 *   node dist/examples/latency.js vhost-user:/run/a.sock vhost-user:/run/b.sock --rate 50000 --record latency.csv
 *
 * With two ports packets leave on the first and come back on the other.
 */

import { writeFileSync } from 'node:fs';
import { parseArgs } from 'node:util';
import { isMainThread } from 'node:worker_threads';
import type { LaunchContext } from 'virtio-pmd/thread';

interface Order {
  /** Packets a second. */
  readonly rate: number;
  readonly count: number;
  /** What every packet begins as; its number follows the Ethernet header. */
  readonly frame: Uint8Array;
}

/** To everybody, from 02:00:00:00:00:01, of the EtherType for local experiments. */
const HEADER = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x02, 0, 0, 0, 0, 0x01, 0x88, 0xb5];
/** How long the last packets have to come back. */
const PATIENCE_MS = 2000;
const MICROSECONDS = 1000;

/** The packet loop, on a worker: returns each packet's latency in microseconds, NaN for one that did not come back. */
export function run({ ports, data, stop, idle }: LaunchContext): Float64Array {
  const { rate, count, frame } = data as Order;
  const tx = ports[0]!.txQueue(0);
  const rx = ports.at(-1)!.rxQueue(0);
  const [out, back] = [ports[0]!.burst(1), ports[0]!.burst(32)];
  const sentAt = new Float64Array(count);
  const latencies = new Float64Array(count).fill(Number.NaN);
  // Where loops sleep, what is measured is how long they do.
  const rest = idle('yield');
  const began = performance.now();
  let [sent, received] = [0, 0];
  for (let last = began; !stop.requested && received < count; ) {
    const now = performance.now();
    if (sent < count && now - began >= (sent * 1000) / rate && out.allocate(1) > 0) {
      const packet = out.bytes(0);
      packet.fill(frame);
      packet.setU32(HEADER.length, sent);
      sentAt[sent] = performance.now();
      sent += tx.send(out);
      out.free();
      last = now;
    }
    const came = rx.receive(back);
    const arrivedAt = performance.now();
    for (let index = 0; index < came; index++) {
      const packet = back.bytes(index);
      const number = packet.length >= frame.length && packet.u16(12) === 0x88b5 ? packet.u32(HEADER.length) : count;
      if (!(number < sent) || !Number.isNaN(latencies[number]!)) continue; // Somebody else's, or twice.
      latencies[number] = (arrivedAt - sentAt[number]!) * MICROSECONDS;
      received++;
    }
    back.free();
    if (sent === count && now - last > PATIENCE_MS) break;
    rest.turn(came);
  }
  return latencies.subarray(0, sent);
}

/** One line for each percentile that so many packets have. */
function report(latencies: Float64Array): void {
  const sorted = latencies.filter((latency) => !Number.isNaN(latency)).sort();
  console.log(`sent ${latencies.length}  received ${sorted.length}  lost ${latencies.length - sorted.length}`);
  if (sorted.length === 0) return;
  for (const percent of [0, 50, 90, 99, 99.9, 100]) {
    const place = Math.min(sorted.length - 1, Math.floor((sorted.length * percent) / 100));
    console.log(`${`${percent} %`.padStart(6)}  ${sorted[place]!.toFixed(1).padStart(9)} us`);
  }
}

async function main(): Promise<void> {
  // Here and not at the top: the thread loads this file, too.
  const [{ launch }, { openPorts }] = await Promise.all([import('virtio-pmd'), import('./open-ports.js')]);
  const text = (value: string) => ({ type: 'string', default: value }) as const;
  const options = { rate: text('10000'), count: text('10000'), size: text('64'), record: { type: 'string' } } as const;
  const { positionals, values } = parseArgs({ allowPositionals: true, options });
  const frame = new Uint8Array(Number(values.size));
  frame.set(HEADER);

  await using ports = await openPorts(positionals.length === 0 ? ['loopback:'] : positionals);
  for (const port of ports) await port.start();
  const order: Order = { rate: Number(values.rate), count: Number(values.count), frame };
  await using loop = await launch(ports, new URL(import.meta.url), { data: order });
  for (const signal of ['SIGINT', 'SIGTERM'] as const) process.once(signal, () => loop.stop());
  for (const port of ports) port.once('fault', fail).once('fault', () => loop.stop());
  const [latencies] = (await loop.finished) as [ReturnType<typeof run>];
  report(latencies);
  if (values.record === undefined) return;
  const lines = Array.from(
    latencies,
    (latency, number) => `${number},${Number.isNaN(latency) ? '' : latency.toFixed(3)}`,
  );
  writeFileSync(values.record, `packet,microseconds\n${lines.join('\n')}\n`);
}

const fail = (error: unknown): void => {
  console.error(String(error));
  process.exitCode = 1;
};
if (isMainThread) await main().catch(fail);
