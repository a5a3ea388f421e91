/** A poll thread that sends and takes back on one pair, its own number, and counts what came back. */

import { PacketField } from '../../driver/memory/packet-fields.js';
import type { LaunchContext } from '../../driver/net/launch-worker.js';

const BURST = 8;
const BYTES = 60;

export function run({ port, stop, index, data, idle }: LaunchContext): void {
  const received = new Int32Array(data as SharedArrayBuffer);
  const rx = port.rxQueue(index);
  const tx = port.txQueue(index);
  const burst = port.burst(BURST);
  const rest = idle('yield');
  while (!stop.requested) {
    const count = rx.receive(burst);
    Atomics.add(received, index, count);
    if (burst.count === 0) burst.allocate(BURST);
    for (const handle of burst.handles.subarray(0, burst.count)) {
      port.pool.fields[handle * PacketField.WORDS + PacketField.SEGMENT_LENGTH] = BYTES;
    }
    tx.send(burst);
    burst.free();
    rest.turn(count);
  }
}
