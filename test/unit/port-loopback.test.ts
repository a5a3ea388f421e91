/** The whole way in one process: port, rings, emulated PCI function, net device, echo. */

import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { openPort } from '../../driver/open.js';
import { Feature } from '../../driver/spec/features.js';

const test = suite('port over the embedded device');

for (const options of [
  { ringSize: 64 },
  { ringSize: 64, ring: 'packed' },
  // With two pairs there are commands on a packed control queue.
  { ringSize: 50, ring: 'packed', eventIndex: true, mergeable: false, queues: 2 },
] as const) {
  test(`packets come back whole and in order, over stops and starts: ${JSON.stringify(options)}`, async () => {
    const port = await openPort('loopback:', { ...options, pages: '4K' });
    try {
      for (let round = 0; round < 3; round++) {
        await port.start();
        assert.is(port.features?.has(Feature.RING_PACKED), 'ring' in options);
        // spec-D17: a packed ring has any size, and is not made smaller.
        assert.is(port.handle().session?.rx[0]?.ring.size, options.ringSize);
        const rx = port.rxQueue(0);
        const tx = port.txQueue(0);
        const burst = port.burst(32);
        const back = port.burst(32);
        let sent = 0;
        let received = 0;
        const deadline = Date.now() + 20_000;
        while (received < 1000) {
          if (sent < 1000 && burst.allocate(Math.min(8, 1000 - sent)) > 0) {
            for (let index = 0; index < burst.count; index++) {
              const view = burst.bytes(index);
              view.setLength(64);
              view.setU32(14, sent + index);
            }
            sent += tx.send(burst);
            burst.free();
          }
          rx.receive(back);
          for (let index = 0; index < back.count; index++) {
            const view = back.bytes(index);
            assert.is(view.length, 64);
            assert.is(view.u32(14), received + index);
          }
          received += back.count;
          back.free();
          assert.ok(Date.now() < deadline, `only ${received} of ${sent} came back`);
          if (received === 0) await new Promise((resolve) => setImmediate(resolve));
        }
        await port.stop();
      }
      const { rx } = port.statistics();
      assert.is(rx[0]?.packets, 3000);
    } finally {
      await port.close();
    }
  });
}

test.run();
