/** `dump_*`. */

import { PacketField } from '../../../memory/packet-fields.js';
import { type Command, command } from '../console/grammar.js';
import {
  deviceArguments,
  freeRing,
  memoryPool,
  memoryZones,
  POOL_NAME,
  physicalMemory,
  RING_NAME,
  socketMemory,
} from '../reports/dump.js';
import { logTypes } from '../reports/log-types.js';
import type { Testpmd } from '../testpmd.js';
import { answer } from './answer.js';

const WORD_BYTES = 4;

/** A dump with one record for machines: what it is of. */
const dump =
  (matter: string, text: (testpmd: Testpmd) => string) =>
  (testpmd: Testpmd): void =>
    answer(testpmd, `dump-${matter}`, recordOf(testpmd), () => text(testpmd));

const recordOf = ({ pool, allPorts }: Testpmd): object => ({
  memory: { bytes: pool.memory.bytes, kind: pool.memory.kind },
  pool: { name: POOL_NAME, buffers: pool.size, bufferBytes: pool.bufferBytes, available: pool.available },
  devices: allPorts.map(({ device: { name, devargs } }) => ({ name, devargs })),
});

const dumpPool = dump('mempool', ({ pool, settings }) => memoryPool(pool, settings.mbufCache));
const dumpRing = dump('ring', ({ pool }) => freeRing(pool));

export const dumpCommands: readonly Command[] = [
  command(
    'dump_physmem',
    'the memory that devices reach',
    dump('physmem', ({ pool }) => physicalMemory(pool)),
  ),
  command(
    'dump_memzone',
    'what the memory is used for',
    dump('memzone', ({ pool }) => memoryZones(pool)),
  ),
  command(
    'dump_socket_mem',
    'how much of the memory is taken',
    dump('socket-memory', ({ pool }) => socketMemory(pool)),
  ),
  command(
    'dump_struct_sizes',
    'bytes of what is kept for a packet',
    dump('struct-sizes', () => `sizeof(struct rte_mbuf) = ${PacketField.WORDS * WORD_BYTES}\n`),
  ),
  command('dump_ring', 'the free buffers', dumpRing),
  command('dump_mempool', 'the pool of packets', dumpPool),
  command(
    'dump_devargs',
    'the devices that were asked for',
    dump('devargs', ({ allPorts }) => deviceArguments(allPorts)),
  ),
  command(
    'dump_log_types',
    'types of logs',
    dump('log-types', () => logTypes()),
  ),
  command('dump_ring {name:word}', 'the free buffers, by name', (testpmd, { name }) => {
    if (name === RING_NAME) dumpRing(testpmd);
    else testpmd.output.warn('Cannot find ring');
  }),
  command('dump_mempool {name:word}', 'the pool of packets, by name', (testpmd, { name }) => {
    if (name === POOL_NAME) dumpPool(testpmd);
    else testpmd.output.warn('Cannot find mempool');
  }),
];
