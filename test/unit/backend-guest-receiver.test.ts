/** The guest behind a device, in the turn of another guest. */

import { suite } from 'uvu';
import * as assert from 'uvu/assert';

import { GuestReceiver, type GuestReceiverParts } from '../../driver/backend/guest-receiver.js';
import type { PeekedPackets } from '../../driver/backend/peeked-packets.js';

const test = suite('guest receiver');

test('a guest whose ring fails is stopped by itself: the sender, in whose turn it happens, sees a full queue', () => {
  const failures: string[] = [];
  const relay = {
    give: (): number => {
      throw new Error('a ring that lies');
    },
  };
  const receiver = new GuestReceiver({
    queues: { byNumber: [{ receive: { relay } }] },
    rings: { fail: (reason: string) => failures.push(reason) },
    filter: { isActive: false },
  } as unknown as GuestReceiverParts);
  assert.is(receiver.give(0, {} as PeekedPackets, new Uint16Array(4), 4), 0);
  assert.equal(failures, ['its device failed: a ring that lies']);
});

test.run();
