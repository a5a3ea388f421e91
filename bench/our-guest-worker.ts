/** The loop of our end on the guest's side: what testpmd's `mac` mode does, on every queue of every port. */

import { type LaunchContext, macForward } from 'virtio-pmd/thread';

export interface GuestWorkerData {
  /** Of each port. */
  readonly macAddresses: readonly (readonly number[])[];
  readonly queues: number;
  readonly burst: number;
}

/** Where testpmd sends packets to when it is told nothing else. */
const PEER = [0x02, 0, 0, 0, 0, 0];

export function run({ ports, stop, data, emit }: LaunchContext): void {
  const { macAddresses, queues, burst: capacity } = data as GuestWorkerData;
  const ways = ports.flatMap((port, number) =>
    Array.from({ length: queues }, (_, pair) => ({
      rx: port.rxQueue(pair),
      tx: port.txQueue(pair),
      burst: port.burst(capacity),
      macAddress: macAddresses[number]!,
    })),
  );
  // The first call gives the device its buffers: what is sent to us before would be lost.
  for (const { rx, burst } of ways) rx.receive(burst);
  emit('polling');
  while (!stop.requested) {
    for (let index = 0; index < ways.length; index++) {
      const { rx, tx, burst, macAddress } = ways[index]!;
      if (rx.receive(burst) === 0 && burst.count === 0) continue;
      macForward(burst, macAddress, PEER);
      tx.send(burst);
    }
  }
  for (const { burst } of ways) burst.free();
}
