/**
 * A port of the back-end in twenty lines: it sends back what a guest sends, with MAC addresses swapped, but every tenth
 * packet is lost, which is good for testing what retransmits.
 *
 *   node dist/examples/custom-port.js               the embedded device, every tenth packet
 *   node dist/examples/custom-port.js --every 3     every third
 *   node dist/examples/custom-port.js --socket-path /run/vm1.sock     a vhost-user back-end, for QEMU or DPDK
 *
 * A port is a module with a function `createPort(context, options)`. It is loaded on the thread that polls the devices:
 * name it in `DeviceThread.start({ ports: [url] })`, and in `new NetDevice(thread, { port })` for each device that has it.
 * All calls come from that thread, between two turns of its loop, so nothing of the port may block, and nothing that is
 * called for every packet should allocate. A port has either
 *
 * - `bounce(burst, start, pair)`: changes packets `start` to `burst.count - 1`, which then go back to the guest, or drops
 *   some with `burst.drop(index)`; or
 * - `fromGuest(burst, pair)`, which takes all packets of the burst (it frees them, or keeps their handles until they go on),
 *   as many at a time as `room(pair)` said, and `toGuest(burst, pair)`, which adds packets of its own for the guest.
 *
 * `burst.bytes(index)` is a view over a packet's first segment, `PacketBytes` one over the whole of it. What a guest sends
 * may be anything: look at lengths first. What a port throws stops the rings of its device, and no others.
 * `CountedPort` brings what a port counts to whoever made it.
 */

import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { isMainThread } from 'node:worker_threads';
import type { CountedPort } from 'virtio-pmd';
import { type BackendPort, type BackendPortContext, countersOf, swapMacs } from 'virtio-pmd/thread';

interface Options {
  readonly every: number;
  readonly counters: SharedArrayBuffer;
}

/** Places of the counters. */
const names = { seen: 0, dropped: 1 } as const;

export function createPort({ queuePairs }: BackendPortContext, { every, counters }: Options): BackendPort {
  const counts = Array.from({ length: queuePairs }, (_, pair) => countersOf(counters, pair));
  return {
    bounce(burst, start, pair) {
      const counter = counts[pair]!;
      for (let index = start; index < burst.count; ) {
        if (++counter[names.seen]! % every === 0) {
          burst.drop(index);
          counter[names.dropped]!++;
        } else {
          index++;
        }
      }
      swapMacs(burst, start);
    },
    room: () => 0,
    fromGuest: () => undefined,
    toGuest: () => undefined,
    close: () => undefined,
  };
}

const PACKETS = 1000;
const PATIENCE_MS = 5000;

/** Sends packets through the driver to an embedded device with this port, and counts those that come back. */
async function loopback(port: CountedPort<keyof typeof names>): Promise<void> {
  const { openPort } = await import('virtio-pmd');
  await using driver = await openPort('loopback:', { device: { port } });
  await driver.start();
  const [rx, tx, burst] = [driver.rxQueue(0), driver.txQueue(0), driver.burst(32)];
  let [sent, received] = [0, 0];
  for (const end = Date.now() + PATIENCE_MS; received < PACKETS - port.statistics().dropped && Date.now() < end; ) {
    if (burst.allocate(Math.min(32, PACKETS - sent)) > 0) {
      for (let index = 0; index < burst.count; index++) burst.bytes(index).setLength(64);
      sent += tx.send(burst);
      burst.free();
    }
    received += rx.receive(burst);
    burst.free();
    await new Promise(setImmediate);
  }
  console.log(`sent ${sent}  received ${received}  dropped ${port.statistics().dropped}`);
}

/** Serves vhost-user front-ends at a path until Ctrl-C; each connection is a guest with a device of its own. */
async function serve(path: string, port: CountedPort<keyof typeof names>): Promise<void> {
  const { DeviceThread, NetDevice, VhostUserServer } = await import('virtio-pmd');
  await using thread = await DeviceThread.start({ ports: [new URL(import.meta.url)] });
  const server = await VhostUserServer.listen(path, { createDevice: () => new NetDevice(thread, { port }) });
  console.log(`listening at ${path}`);
  await new Promise((resolve) => process.once('SIGINT', resolve));
  await server.close();
  console.log(`seen ${port.statistics().seen}  dropped ${port.statistics().dropped}`);
}

if (isMainThread && process.argv[1] === fileURLToPath(import.meta.url)) {
  // Here and not at the top: the thread loads this file, too.
  const { CountedPort } = await import('virtio-pmd');
  const options = { every: { type: 'string', default: '10' }, 'socket-path': { type: 'string' } } as const;
  const { values } = parseArgs({ options });
  const port = new CountedPort(import.meta.url, { every: Number(values.every) }, names);
  const path = values['socket-path'];
  await (path === undefined ? loopback(port) : serve(path, port)).catch((error: unknown) => {
    console.error(String(error));
    process.exitCode = 1;
  });
}
