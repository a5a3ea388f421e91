/** The loop of our end on the guest's side: what testpmd's `mac` mode does. */

import { type LaunchContext, macForward } from 'virtio-pmd/thread';

/** Where testpmd sends packets to when it is told nothing else. */
const PEER = [0x02, 0, 0, 0, 0, 0];

export function run({ port, stop, data, emit }: LaunchContext): void {
  const { macAddress } = data as { macAddress: readonly number[] };
  const rx = port.rxQueue(0);
  const tx = port.txQueue(0);
  const burst = port.burst(32);
  // The first call gives the device its buffers: what is sent to us before would be lost.
  rx.receive(burst);
  emit('polling');
  while (!stop.requested) {
    if (rx.receive(burst) === 0 && burst.count === 0) continue;
    macForward(burst, macAddress, PEER);
    tx.send(burst);
  }
  burst.free();
}
