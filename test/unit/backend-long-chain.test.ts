/** Chains as long as the largest ring: they are moved however small the host's buffers are (abuse B62, row 47). */

import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { RingCounters } from '../../driver/backend/counters.js';
import { GuestDevice } from '../../driver/backend/guest-device.js';
import { AVAIL_INDEX, SplitRingViews, USED_INDEX } from '../../driver/ring/split-views.js';
import { Feature, FeatureSet } from '../../driver/spec/features.js';
import { DescFlag, MAX_QUEUE_SIZE, splitRingParts } from '../../driver/spec/ring.js';
import { native } from '../../native/index.js';
import { assertPackets, HandThread, pattern, RecordingPort } from '../support/hand-guest.js';

const test = suite('long chains');
const SIZE = MAX_QUEUE_SIZE;
const parts = splitRingParts(SIZE);
const AVAIL = parts.desc.bytes;
const USED = AVAIL + 0x2_0000;
const BUFFERS = USED + 0x5_0000;
const BYTES = BUFFERS + 0x2_0000;

for (const direction of ['from', 'to'] as const) {
  test(`${SIZE} descriptors of 2 bytes, ${direction} the guest, with host buffers of 512 bytes`, () => {
    using thread = new HandThread(2048, 512);
    const fd = native.createMemory('virtio-test-long', BYTES, 0);
    const memory = native.mapShared(fd, 0, BYTES, 0);
    const port = new RecordingPort(thread.pool);
    const device = new GuestDevice(thread, port, 1, RingCounters.create(3), (event) =>
      assert.unreachable(JSON.stringify(event)),
    );
    try {
      const at = (offset: number) => ({ buffer: memory, offset });
      const views = new SplitRingViews(SIZE, at(0), at(AVAIL), at(USED));
      const isFrom = direction === 'from';
      for (let id = 0; id < SIZE; id++) {
        const isLast = id === SIZE - 1;
        const flags = (isFrom ? 0 : DescFlag.WRITE) | (isLast ? 0 : DescFlag.NEXT);
        views.desc.set([BUFFERS + 2 * id, 0, 2, (flags | ((isLast ? 0 : id + 1) << 16)) >>> 0], 4 * id);
      }
      const packet = pattern(9, 2 * SIZE - 12);
      const bytes = new Uint8Array(memory);
      device.setFeatures(FeatureSet.of(Feature.VERSION_1));
      device.setMemory([{ fd, fileOffset: 0, guestAddress: 0n, bytes: BYTES }]);
      const ring = isFrom ? 1 : 0;
      const places = { desc: 0n, avail: BigInt(AVAIL), used: BigInt(USED) };
      const fds = { kickFd: undefined, callFd: undefined, errFd: undefined };
      device.enableRing(ring, true);
      device.startRing(ring, { size: SIZE, base: 0, ...places, ...fds });
      if (isFrom) bytes.set(packet, BUFFERS + 12);
      else port.queued.push(packet);
      Atomics.store(views.avail, AVAIL_INDEX, 1);
      for (let turn = 0; turn < 4; turn++) device.poll();
      assert.is(Atomics.load(views.used, USED_INDEX), 1, 'it is used');
      if (isFrom) assertPackets(port.received, [packet]);
      else assertPackets([bytes.slice(BUFFERS + 12, BUFFERS + 2 * SIZE)], [packet]);
    } finally {
      device.close();
      native.unmapShared(memory);
      native.closeFd(fd);
    }
  });
}

test.run();
