/** A virtio port on an lcore: its queues come by requests of the control side (`Port.moveQueue`). */

import type { PortHandle } from '../../../net/attached-port.js';
import { attachToPort } from '../../../net/port-requests.js';
import type { LcoreContextOfPort, PolledPort } from '../lcore/polled-port.js';

export async function attachPort(
  { pool, onRequest }: LcoreContextOfPort,
  { handle }: { readonly handle: PortHandle },
): Promise<PolledPort> {
  const port = await attachToPort(handle, pool, onRequest);
  onRequest('ring-stand', ({ direction, queue }: { direction: 'rx' | 'tx'; queue: number }) =>
    (direction === 'rx' ? port.rxQueue(queue) : port.txQueue(queue)).stand(),
  );
  return {
    rxQueue: (queue) => port.rxQueue(queue),
    txQueue: (queue) => port.txQueue(queue),
    close: () => port.close(),
  };
}
