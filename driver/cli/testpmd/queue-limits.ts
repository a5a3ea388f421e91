/** How many queues all ports can have: the least that one of them has. */

import type { Direction, TestPort } from './test-port.js';

/** The greatest number of queues of a port (`RTE_MAX_QUEUES_PER_PORT`). */
const MAX_QUEUES = 1024;

/** The limit, and the port that sets it. */
export function queueLimit(
  ports: readonly TestPort[],
  direction: Direction,
): { readonly limit: number; readonly port: number } {
  let least = { limit: MAX_QUEUES, port: 0 };
  if (ports.length === 0) return { limit: 0, port: 0 };
  for (const { id, device } of ports) {
    const { maxRxQueues, maxTxQueues } = device.info();
    const limit = direction === 'rx' ? maxRxQueues : maxTxQueues;
    if (limit < least.limit) least = { limit, port: id };
  }
  return least;
}
