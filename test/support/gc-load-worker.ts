/** Sends and receives as fast as it can, and marks what its heap does. */

import { swapMacs } from '../../driver/memory/ethernet.js';
import type { LaunchContext } from '../../driver/net/launch-worker.js';
import { GcMarks, Isolate } from './gc-marks.js';

export interface LoadData {
  readonly buffer: SharedArrayBuffer;
  /** Allocate on purpose, an array a burst. */
  readonly allocate: boolean;
}

export function run({ port, stop, data }: LaunchContext): { packets: number; kept: number } {
  const { buffer, allocate } = data as LoadData;
  const marks = new GcMarks(buffer, Isolate.DRIVER);
  const [rx, tx] = [port.rxQueue(0), port.txQueue(0)];
  const burst = port.burst(32);
  const fresh = port.burst(32);
  let packets = 0;
  let kept: object = {};
  while (!stop.requested) {
    marks.turn();
    // New packets, of the lengths that there are.
    if (fresh.allocate(16) > 0) {
      for (let index = 0; index < fresh.count; index++) fresh.bytes(index).setLength(64 + ((packets + index) & 0x3ff));
      tx.send(fresh);
      fresh.free();
    }
    const received = rx.receive(burst);
    packets += received;
    if (allocate && received > 0) kept = new Array(2048).fill(received);
    swapMacs(burst);
    // Some go round once more, the rest is freed.
    tx.send(burst);
    burst.free();
  }
  return { packets, kept: Object.keys(kept).length };
}
