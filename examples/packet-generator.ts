/**
 * A packet generator: sends at a rate, and counts what comes back.
 *   node dist/examples/packet-generator.js                                     the embedded device, which echoes
 *   node dist/examples/packet-generator.js --rate 1000000 vhost-user:/run/a.sock --size 512 --seconds 10
 */

import { parseArgs } from 'node:util';
import { isMainThread } from 'node:worker_threads';
import type { LaunchContext } from 'virtio-pmd/thread';

interface Order {
  /** Packets a second. */
  readonly rate: number;
  readonly seconds: number;
  /** What every packet begins as. */
  readonly frame: Uint8Array;
}

/** To everybody, from 02:00:00:00:00:01, of the EtherType for local experiments. */
const HEADER = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x02, 0, 0, 0, 0, 0x01, 0x88, 0xb5];
/** How long the last packets have to come back. */
const PATIENCE_SECONDS = 2;

/** The packet loop, on a worker: returns how many packets left and how many came back. */
export function run({ port, data, stop, idle }: LaunchContext): { sent: number; received: number } {
  const { rate, seconds, frame } = data as Order;
  const rx = port.rxQueue(0);
  const tx = port.txQueue(0);
  const out = port.burst(32);
  const back = port.burst(32);
  const rest = idle('sleep');
  const began = performance.now();
  let made = 0;
  let sent = 0;
  let received = 0;
  for (let elapsed = 0; !stop.requested; elapsed = (performance.now() - began) / 1000) {
    const due = elapsed < seconds ? Math.min(Math.floor(rate * elapsed) - made, out.capacity) : 0;
    if (out.count === 0 && due > 0 && out.allocate(due) > 0) {
      for (let index = 0; index < due; index++) {
        const packet = out.bytes(index);
        packet.fill(frame);
        packet.setU32(HEADER.length, made++);
      }
    }
    const taken = tx.send(out); // What the ring has no room for stays in the burst until the next turn.
    const came = rx.receive(back);
    back.free();
    sent += taken;
    received += came;
    // Only after a look at what has come.
    if (elapsed > seconds && (received === made || elapsed > seconds + PATIENCE_SECONDS)) break;
    rest.turn(taken + came);
  }
  out.free();
  return { sent, received };
}

async function main(): Promise<void> {
  // Here and not at the top: the thread loads this file, too.
  const { launch, openPort } = await import('virtio-pmd');
  const text = (value: string) => ({ type: 'string', default: value }) as const;
  const options = { rate: text('100000'), size: text('64'), seconds: text('3') };
  const { positionals, values } = parseArgs({ allowPositionals: true, options });
  const frame = new Uint8Array(Number(values.size));
  frame.set(HEADER);

  await using port = await openPort(positionals[0] ?? 'loopback:');
  await port.start();
  const order: Order = { rate: Number(values.rate), seconds: Number(values.seconds), frame };
  await using generator = await launch(port, new URL(import.meta.url), { data: order });
  process.once('SIGINT', () => generator.stop());
  port.once('fault', fail).once('fault', () => generator.stop());
  console.log(`sending through ${port.address}`);
  const [{ sent, received }] = (await generator.finished) as [ReturnType<typeof run>];
  console.log(`sent ${sent}  received ${received}  lost ${sent - received}`);
}

const fail = (error: unknown): void => {
  console.error(String(error));
  process.exitCode = 1;
};
if (isMainThread) await main().catch(fail);
