/** How many queues all ports can have: the least that one of them has. */

import type { Direction, TestPort } from './test-port.js';
import type { Testpmd } from './testpmd.js';

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

/** Whether all ports can have so many queues; says which one cannot. */
export function canHaveQueues({ allPorts, output }: Testpmd, direction: Direction, count: number): boolean {
  const { limit, port } = queueLimit(allPorts, direction);
  if (count <= limit) return true;
  const most = `max_${direction}_queues (${limit}) of port ${port}`;
  output.warn(`Fail: input ${direction}q (${count}) can't be greater than ${most}`);
  return false;
}
