/** Sends packets that a device returns, and sees in which queue each of them comes back. */

import { setTimeout as delay } from 'node:timers/promises';
import * as assert from 'uvu/assert';

import type { Port } from '../../driver/net/port.js';

const BROADCAST = new Uint8Array(6).fill(0xff);
const TIMEOUT_MS = 30_000;
/** Looks at all queues behind the last packet: what was sent before it may be in another queue. */
const LATER_LOOKS = 20;

/** A packet of 60 bytes to an address. */
export const packetTo = (address: Uint8Array): Uint8Array => Uint8Array.from([...address, ...new Array(54).fill(0)]);

/**
 * Sends packets on the first of `pairs` queue pairs, then one to `last` (to everybody) that is sure to come back; resolves
 * to the queue that each of the former comes back in, undefined where it does not.
 */
export async function exchange(
  port: Port,
  pairs: number,
  packets: readonly Uint8Array[],
  last: Uint8Array = BROADCAST,
): Promise<(number | undefined)[]> {
  const burst = port.burst(32);
  const all = [...packets, packetTo(last)].map((packet, index) => Uint8Array.from([...packet, index]));
  assert.is(burst.allocate(all.length), all.length);
  for (const [index, packet] of all.entries()) burst.bytes(index).fill(packet);
  assert.is(port.txQueue(0).send(burst), all.length);
  burst.free();
  const found = new Array<number | undefined>(packets.length).fill(undefined);
  const deadline = performance.now() + TIMEOUT_MS;
  for (let isLast = false, looks = 0; looks < LATER_LOOKS; ) {
    assert.ok(performance.now() < deadline, 'the last packet comes back');
    if (isLast) looks += 1;
    for (let pair = 0; pair < pairs; pair++) {
      port.rxQueue(pair).receive(burst);
      for (let index = 0; index < burst.count; index++) {
        const packet = burst.bytes(index).copyPacket();
        // A device may have something to say of its own.
        const number = all.findIndex((sent) => Buffer.compare(sent, packet) === 0);
        if (number === packets.length) isLast = true;
        else if (number >= 0) found[number] = pair;
      }
      burst.free();
    }
    await delay(1);
  }
  return found;
}
