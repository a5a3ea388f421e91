/** Our end on the guest's side: the driver as vhost-user front-end, forwarding on one pinned thread. */

import { createPool, launch, openPort, type PacketPool, type Port } from 'virtio-pmd';

import { type OurEndRole, serve } from './our-end-child.js';
import type { OurEndOptions } from './our-ends.js';
import type { GuestWorkerData } from './our-guest-worker.js';

/** As DPDK's driver has it: the headroom of its packets, and headers left as they came. */
const AS_DPDK = { headroom: 128, keepNumBuffers: true };
const MIB = 2 ** 20;
/** A buffer of a pool: an odd number of cache lines, as the library's own. */
const BUFFER_BYTES = 35 * 64;
/** Packets that threads keep for themselves. */
const POOL_MARGIN = 1024;

async function open(options: OurEndOptions): Promise<OurEndRole> {
  const { core, queues, burst } = options;
  const pool = sharedPool(options);
  const ports: Port[] = [];
  let launched: Awaited<ReturnType<typeof launch>> | undefined;
  const close = async () => {
    await launched?.stop();
    for (const port of ports.reverse()) await port.close();
    pool?.memory.close();
  };
  try {
    for (let count = 0; count < options.connections; count++) ports.push(await openOne(options, pool));
    for (const port of ports) await port.start();
  } catch (error) {
    await close();
    throw error;
  }
  const worker = new URL('./our-guest-worker.js', import.meta.url);
  return {
    begin: async () => {
      let onPolling = () => {};
      const polling = new Promise<void>((resolve) => {
        onPolling = resolve;
      });
      const data: GuestWorkerData = {
        macAddresses: ports.map((port) => [...port.macAddress!]),
        queues,
        burst,
        idle: options.packed ? 'pause' : 'spin',
      };
      launched = await launch(ports, worker, { lcores: [core], data, onEvent: () => onPolling() });
      // A thread that ends instead has failed, and says why.
      await Promise.race([polling, launched.finished]);
    },
    packets: () =>
      ports.reduce((sum, port) => sum + port.statistics().rx.reduce((packets, queue) => packets + queue.packets, 0), 0),
    close,
  };
}

function openOne({ socket, queues, ringSize, packed, mergeable, inOrder }: OurEndOptions, pool?: PacketPool) {
  const ring = packed ? 'packed' : 'split';
  const common = { queues, ring, ringSize, mergeable, inOrder } as const;
  return openPort(`vhost-user:${socket}`, { ...common, ...(pool && { pool }), ...AS_DPDK });
}

/** One pool for all connections, or one of the size that was asked for; undefined where the port makes its own. */
function sharedPool({ connections, guestMemory, ringSize, queues, burst }: OurEndOptions): PacketPool | undefined {
  if (connections === 1 && guestMemory === null) return undefined;
  const needed = connections * queues * 2 * (ringSize + burst) + POOL_MARGIN;
  const size = Math.max(needed, Math.floor(((guestMemory ?? 0) * MIB) / BUFFER_BYTES));
  const pool = createPool({ size, bufferBytes: BUFFER_BYTES, headroom: AS_DPDK.headroom });
  if (guestMemory !== null) shuffle(pool);
  return pool;
}

/** Puts the free buffers in an order that has nothing to do with where they are. */
function shuffle(pool: PacketPool): void {
  const handles = new Uint32Array(pool.size);
  let taken = 0;
  while (taken < handles.length && pool.allocate(handles, taken, 1)) taken++;
  for (let left = taken; left > 1; left--) {
    const other = Math.floor(Math.random() * left);
    [handles[left - 1], handles[other]] = [handles[other]!, handles[left - 1]!];
  }
  pool.free(handles, 0, taken);
}

await serve(open);
