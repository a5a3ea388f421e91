/** Counts packets by size and by whom they are for: for ports that were opened with `xstats`. */

import { PacketField } from '../memory/packet-fields.js';
import type { PacketPool } from '../memory/packet-pool.js';
import { specialize } from '../specialize.js';

/** Positions of a queue's tallies: sizes without frame check sequence, as DPDK counts them. */
export const Tally = {
  UNDERSIZE: 0,
  SIZE_64: 1,
  SIZE_65_127: 2,
  SIZE_128_255: 3,
  SIZE_256_511: 4,
  SIZE_512_1023: 5,
  SIZE_1024_1518: 6,
  SIZE_1519_MAX: 7,
  /** For a group that is not everybody. */
  MULTICAST: 8,
  BROADCAST: 9,
  /** Two cache lines a queue. */
  COUNT: 16,
} as const;

export interface PacketTally {
  /** Counts the packets of `handles[start]` to `handles[end - 1]`. */
  count(handles: Uint32Array, start: number, end: number): void;
}

/** Memory for the tallies of so many queues. */
export const createTallies = (queues: number): SharedArrayBuffer => new SharedArrayBuffer(queues * Tally.COUNT * 8);

/** The tallies of queue `index`, by `Tally`: whole numbers, exact to 2^53. */
export const talliesOf = (memory: SharedArrayBuffer, index: number): Float64Array =>
  new Float64Array(memory, index * Tally.COUNT * 8, Tally.COUNT);

/** How many packets a queue's tallies have counted. */
export const packetsOf = (tallies: Float64Array): number =>
  tallies.subarray(Tally.UNDERSIZE, Tally.MULTICAST).reduce((sum, packets) => sum + packets, 0);

const { DATA_OFFSET, PACKET_LENGTH, WORDS_SHIFT } = PacketField;
const { UNDERSIZE, SIZE_64, SIZE_1024_1518, SIZE_1519_MAX, MULTICAST, BROADCAST } = Tally;
/** Sizes from 65 to 1023 bytes count by their highest bit: 2 for that of 65. */
const CLASS_OF_BIT = 27;

export const packetTally = specialize(
  function packetTally(pool: PacketPool, tallies: Float64Array): PacketTally {
    const { fields, bytes, offset, bufferBytes } = pool;

    // Bounds: handles come from the pool, and a packet that was received or posted has an Ethernet header.
    function count(handles: Uint32Array, start: number, end: number): void {
      for (let index = start; index < end; index++) {
        const handle = handles[index]!;
        const field = handle << WORDS_SHIFT;
        const length = fields[field + PACKET_LENGTH]!;
        let size: number = SIZE_1519_MAX;
        if (length < 64) size = UNDERSIZE;
        else if (length === 64) size = SIZE_64;
        else if (length < 1024) size = CLASS_OF_BIT - Math.clz32(length);
        else if (length < 1519) size = SIZE_1024_1518;
        tallies[size]! += 1;
        const at = offset + Math.imul(handle, bufferBytes) + fields[field + DATA_OFFSET]!;
        if ((bytes[at]! & 1) === 0) continue;
        const all = bytes[at]! & bytes[at + 1]! & bytes[at + 2]! & bytes[at + 3]! & bytes[at + 4]! & bytes[at + 5]!;
        tallies[all === 0xff ? BROADCAST : MULTICAST]! += 1;
      }
    }

    return { count };
  },
  {
    DATA_OFFSET,
    PACKET_LENGTH,
    WORDS_SHIFT,
    UNDERSIZE,
    SIZE_64,
    SIZE_1024_1518,
    SIZE_1519_MAX,
    MULTICAST,
    BROADCAST,
    CLASS_OF_BIT,
  },
);
