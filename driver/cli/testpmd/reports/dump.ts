/** `dump_*`: what memory there is and what is in it, by the fields of DPDK's dumps as far as there is something behind them. */

import type { PacketPool } from '../../../index.js';
import type { TestPort } from '../test-port.js';

/** The pool that all ports share, and the list of its free buffers, by testpmd's names. */
export const POOL_NAME = 'mb_pool_0';
export const RING_NAME = 'MP_mb_pool_0';
const MEGABYTE = 1024 * 1024;
const PAGE_BYTES = 4096;
/** Threads that DPDK keeps a cache for (`RTE_MAX_LCORE`). */
const LCORES_MAX = 128;
const PCI_ADDRESS = /^[\da-f]{4}:[\da-f]{2}:[\da-f]{2}\.\d$/i;

const hex = (value: bigint | number): string => `0x${value.toString(16)}`;
const bufferBytes = ({ size, bufferBytes: each }: PacketPool): number => size * each;
const pageBytes = ({ memory }: PacketPool): number => (memory.kind.startsWith('2 MiB') ? 2 * MEGABYTE : PAGE_BYTES);

/** The memory that devices reach: one segment, for it is one mapping. */
export function physicalMemory(pool: PacketPool): string {
  const { memory } = pool;
  const at = hex(memory.iovas.at(0));
  const place = `IOVA:${at}, len:${memory.bytes}, virt:${at}, socket_id:0, hugepage_sz:${pageBytes(pool)}`;
  return `Segment 0-0: ${place}, nchannel:0, nrank:0 fd:${memory.handle.fd}\n`;
}

/** The one thing of testpmd's own that has memory of its own under a name. */
export function memoryZones(pool: PacketPool): string {
  const at = hex(pool.memory.iovas.at(pool.offset));
  const bytes = hex(bufferBytes(pool));
  return [
    `Zone 0: name:<${POOL_NAME}>, len:${bytes}, virt:${at}, socket_id:0, flags:0`,
    'physical segments used:',
    `  addr: ${at} iova: ${at} len: ${bytes} pagesz: ${hex(pageBytes(pool))}`,
    '',
  ].join('\n');
}

/** How much of the memory is taken. */
export function socketMemory(pool: PacketPool): string {
  const total = pool.memory.bytes;
  const taken = bufferBytes(pool);
  const megabytes = (bytes: number): string => (bytes / MEGABYTE).toFixed(6);
  const share = ((taken / total) * 100).toFixed(3);
  const sizes = `size(M) total: ${megabytes(total)} alloc: ${megabytes(taken)}(${share}%) free: ${megabytes(total - taken)}`;
  const line = `${sizes} \tcount alloc: 1  free: 1`;
  return `Socket 0: ${line}\nTotal   : ${line}\n`;
}

/** @param cache buffers that each thread may keep (`--mbcache`); those that it has count as taken */
export function memoryPool(pool: PacketPool, cache: number): string {
  const at = hex(pool.memory.iovas.at(pool.offset));
  const lines = [
    `mempool <${POOL_NAME}>@${at}`,
    '  flags=0',
    '  socket_id=0',
    `  pool=${at}`,
    `  iova=${at}`,
    '  nb_mem_chunks=1',
    `  size=${pool.size}`,
    `  populated_size=${pool.size}`,
    '  header_size=0',
    `  elt_size=${pool.bufferBytes}`,
    '  trailer_size=0',
    `  total_obj_size=${pool.bufferBytes}`,
    '  private_data_size=0',
    '  ops_index=0',
    '  ops_name: <ring_mp_mc>',
    `  avg bytes/object=${pool.bufferBytes.toFixed(6)}`,
    '  internal cache infos:',
    `    cache_size=${cache}`,
    ...Array.from({ length: LCORES_MAX }, (_, lcore) => `    cache_count[${lcore}]=0`),
    '    total_cache_count=0',
    `  common_pool_count=${pool.available}`,
    '  no statistics available',
  ];
  return `${lines.join('\n')}\n`;
}

/** The free buffers, as the ring that DPDK keeps them in. */
export function freeRing(pool: PacketPool): string {
  const size = 2 ** Math.ceil(Math.log2(pool.size + 1));
  const used = pool.available;
  const lines = [
    `ring <${RING_NAME}>@${hex(pool.memory.iovas.at(pool.offset))}`,
    '  flags=0',
    `  size=${size}`,
    `  capacity=${size - 1}`,
    '  ct=0',
    '  ch=0',
    `  pt=${used}`,
    `  ph=${used}`,
    `  used=${used}`,
    `  avail=${size - 1 - used}`,
  ];
  return `${lines.join('\n')}\n`;
}

export function deviceArguments(ports: readonly TestPort[]): string {
  const rows = ports.map(({ device: { name, devargs } }) => {
    const bus = PCI_ADDRESS.test(name) ? 'pci' : 'vdev';
    return `  [${bus}]: ${name} ${devargs}\n`;
  });
  return `User device list:\n${rows.join('')}`;
}
