/** How much memory a port takes, before it is opened. */

import { PacketPool } from '../memory/packet-pool.js';
import { SPARE_BUFFERS } from './port.js';
import { ringMemoryBytes } from './port-queues.js';

/** Bytes of a port's two memories; each begins on pages of its own. */
export interface PortMemory {
  readonly rings: number;
  readonly packets: number;
}

/** Returns what `openPort` with these options allocates. */
export const portMemory = (options: { readonly queues: number; readonly ringSize: number }): PortMemory => ({
  rings: ringMemoryBytes(options.queues, options.ringSize),
  packets: PacketPool.bytesNeeded({ size: options.queues * 2 * options.ringSize + SPARE_BUFFERS }),
});
