/** The part of a thread's packet buffers that nobody may sit on. */

import type { PacketPool } from '../memory/packet-pool.js';

/**
 * Free buffers of a thread below which no guest and no port may hold packets that are not on their way: with fewer, what
 * is held is dropped or no more is taken, so that the other guests of the thread go on.
 */
export const poolReserve = (pool: PacketPool): number => pool.size >>> 2;
