/** The meter as a port of the back-end, on the host's side. */

import type { BackendPort, BackendPortContext, Burst } from 'virtio-pmd/thread';

import { MeterTraffic } from './traffic.js';
import { TrialMemory } from './trial.js';

export interface MeterPortOptions {
  readonly trials: SharedArrayBuffer;
}

export function createPort(context: BackendPortContext, { trials }: MeterPortOptions): BackendPort {
  const traffic = new MeterTraffic(new TrialMemory(trials), context.pool);
  return {
    room: () => Number.MAX_SAFE_INTEGER,
    fromGuest: (burst: Burst) => traffic.take(burst),
    toGuest: (burst: Burst) => traffic.fill(burst),
    close: () => {},
  };
}
