/** A launched loop that sends a short packet and a long one to a device that sends them back, and tells what came. */

import { type LaunchContext, OffloadRequests, PacketField, PacketView } from '../../driver/thread.js';
import { type PacketShape, packetOf, place } from './offload-packets.js';

/** A packet that came back: flags, segment size, and whether it is what was sent. */
export interface Back {
  readonly flags: number;
  readonly size: number;
  readonly isSame: boolean;
}

const LIMIT_MS = 20_000;

export function run({ port, stop, idle }: LaunchContext): Back[] {
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
  const rest = idle('sleep');
  const back: Back[] = [];
  for (const end = Date.now() + LIMIT_MS; !stop.requested && back.length < sent.length && Date.now() < end; ) {
    rest.turn(rx.receive(burst));
    for (const received of burst.handles.subarray(0, burst.count)) {
      const flags = port.pool.fields[received * PacketField.WORDS + PacketField.FLAGS]!;
      const isSame = Buffer.compare(view.move(received).copyPacket(), sent[back.length]!) === 0;
      back.push({ flags: flags & 0xffff, size: flags >>> 16, isSame });
    }
    burst.free();
  }
  return back;
}
