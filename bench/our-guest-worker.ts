/** The loop of our end on the guest's side: what testpmd's `mac` mode does, on every queue of every port. */

import { type IdlePolicy, type LaunchContext, macForward } from 'virtio-pmd/thread';

export interface GuestWorkerData {
  /** Of each port. */
  readonly macAddresses: readonly (readonly number[])[];
  readonly queues: number;
  readonly burst: number;
  /** What it does when nothing comes. */
  readonly idle: IdlePolicy;
}

/** Where testpmd sends packets to when it is told nothing else. */
const PEER = [0x02, 0, 0, 0, 0, 0];

export function run({ ports, stop, data, emit, idle }: LaunchContext): void {
  const { macAddresses, queues, burst: capacity, idle: policy } = data as GuestWorkerData;
  const rest = idle(policy);
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
    let waiting = 0;
    for (let index = 0; index < ways.length; index++) {
      const { rx, tx, burst, macAddress } = ways[index]!;
      rx.receive(burst);
      waiting += burst.count;
      if (burst.count === 0) continue;
      macForward(burst, macAddress, PEER);
      tx.send(burst);
    }
    rest.turn(waiting);
  }
  for (const { burst } of ways) burst.free();
}
