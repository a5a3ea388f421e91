/** Changes to Ethernet headers, at every alignment, against a plain byte model. */

import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { Burst } from '../../driver/memory/burst.js';
import { DmaMemory } from '../../driver/memory/dma-memory.js';
import { macForward, swapMacs } from '../../driver/memory/ethernet.js';
import { PacketField } from '../../driver/memory/packet-fields.js';
import { PacketPool } from '../../driver/memory/packet-pool.js';

const test = suite('Ethernet headers of a burst');
const BUFFER = 256;
const SOURCE = [0x02, 0x11, 0x92, 0x13, 0x94, 0x15];
const DESTINATION = [0xff, 0xfe, 0x7d, 0x80, 0x00, 0xa1];

/** The model: what the two do to the 12 bytes at `at`. */
const models: Record<string, (bytes: Uint8Array, at: number) => void> = {
  swapMacs: (bytes, at) => {
    const destination = bytes.slice(at, at + 6);
    bytes.copyWithin(at, at + 6, at + 12);
    bytes.set(destination, at + 6);
  },
  macForward: (bytes, at) => {
    bytes.set(DESTINATION, at);
    bytes.set(SOURCE, at + 6);
  },
};

for (const [name, change] of Object.entries({
  swapMacs,
  macForward: (burst: Burst, start: number) => macForward(burst, SOURCE, DESTINATION, start),
})) {
  test(`${name}: the twelve bytes of each packet of the burst and no other, at every alignment`, () => {
    using memory = DmaMemory.allocate({ bytes: 32 * BUFFER, pages: '4K' });
    // A pool that does not begin at 0 either.
    memory.take(64, 64);
    const pool = PacketPool.create(memory, { size: 24, bufferBytes: BUFFER, headroom: 64 });
    for (let shift = 0; shift < 8; shift++) {
      const burst = new Burst(pool, 8);
      assert.is(burst.allocate(8), 8);
      for (let position = 0; position < pool.bytes.length; position++)
        pool.bytes[position] = (position * 167 + shift) >>> 3;
      const model = pool.bytes.slice();
      for (let index = 0; index < 8; index++) {
        const offset = 64 + ((shift + index) & 7);
        const handle = burst.handles[index]!;
        pool.fields[handle * PacketField.WORDS + PacketField.DATA_OFFSET] = offset;
        // The last packet is outside the burst, and the first are not asked for.
        if (index < 7 && index >= shift % 3) models[name]!(model, pool.offset + handle * BUFFER + offset);
      }
      burst.count = 7;
      change(burst, shift % 3);
      assert.equal(pool.bytes, model, `shift ${shift}`);
      burst.count = 8;
      burst.free();
    }
  });
}

test.run();
