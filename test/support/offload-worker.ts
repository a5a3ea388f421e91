/** A launched loop that sends a short packet and a long one to a device that sends them back, and tells what came. */

import {
  type AttachedPort,
  type LaunchContext,
  OffloadRequests,
  PacketField,
  PacketView,
} from '../../driver/thread.js';
import { type PacketShape, packetOf, place } from './offload-packets.js';

/** A packet that came back: flags, segment size, and whether it is what was sent. */
export interface Back {
  readonly flags: number;
  readonly size: number;
  readonly isSame: boolean;
}

/** What the word in `data` says: the queues are taken, and not used before the go-ahead. */
export const Gate = { TAKEN: 1, GO: 2 } as const;

const LIMIT_MS = 20_000;

/** @param data a `SharedArrayBuffer` with a `Gate`, or nothing to send at once */
export function run({ port, stop, idle, data }: LaunchContext): Promise<Back[]> {
  const rest = idle('sleep');
  if (data !== undefined) {
    const gate = new Int32Array(data as SharedArrayBuffer);
    port.rxQueue(0);
    port.txQueue(0);
    Atomics.store(gate, 0, Gate.TAKEN);
    while (Atomics.load(gate, 0) !== Gate.GO && !stop.requested) rest.turn(0);
  }
  return exchangeBoth(port, (received) => {
    rest.turn(received);
    return !stop.requested;
  });
}

/** Sends a short packet and a long one; takes what comes back, until `goesOn` of a turn's packets says no. */
export async function exchangeBoth(
  port: Pick<AttachedPort, 'pool' | 'rxQueue' | 'txQueue' | 'burst'>,
  goesOn: (received: number) => boolean | Promise<boolean>,
): Promise<Back[]> {
  const rx = port.rxQueue(0);
  const tx = port.txQueue(0);
  const burst = port.burst(8);
  const requests = new OffloadRequests(port.pool);
  const shape: PacketShape = { version: 4, protocol: 'tcp', payload: new Uint8Array(40_000).map((_, at) => at * 3) };
  const short = place(port.pool, packetOf({ ...shape, payload: new Uint8Array(9) }));
  const long = place(port.pool, packetOf(shape));
  requests.checksum(short);
  requests.segmentation(long, 1400);
  const view = new PacketView(port.pool);
  const sent = [short, long].map((handle) => view.move(handle).copyPacket());
  burst.handles.set([short, long]);
  burst.count = sent.length;
  tx.send(burst);
  const back: Back[] = [];
  for (const end = Date.now() + LIMIT_MS; back.length < sent.length && Date.now() < end; ) {
    if (!(await goesOn(rx.receive(burst)))) break;
    for (const received of burst.handles.subarray(0, burst.count)) {
      const flags = port.pool.fields[received * PacketField.WORDS + PacketField.FLAGS]!;
      const isSame = Buffer.compare(view.move(received).copyPacket(), sent[back.length]!) === 0;
      back.push({ flags: flags & 0xffff, size: flags >>> 16, isSame });
    }
    burst.free();
  }
  return back;
}
