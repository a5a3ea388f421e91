/** The meter's loop on the guest's side. */

import type { LaunchContext } from 'virtio-pmd/thread';

import { MeterTraffic } from './traffic.js';
import { TrialMemory } from './trial.js';

export function run({ port, stop, data, emit }: LaunchContext): void {
  const { trials, burst: capacity } = data as { trials: SharedArrayBuffer; burst: number };
  const rx = port.rxQueue(0);
  const tx = port.txQueue(0);
  const out = port.burst(capacity);
  const back = port.burst(capacity);
  const traffic = new MeterTraffic(new TrialMemory(trials), out.pool);
  rx.receive(back);
  emit('polling');
  while (!stop.requested) {
    if (rx.receive(back) > 0) traffic.take(back);
    traffic.fill(out);
    if (out.count > 0) tx.send(out);
  }
  out.free();
}
