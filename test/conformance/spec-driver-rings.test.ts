/** What the driver owes the specification in its rings, through a whole port (spec-D10, D25, D27, D28, E10). */

import { setTimeout as delay } from 'node:timers/promises';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { offeredFeatures } from '../../driver/backend/net-device-offer.js';
import type { PortOptions } from '../../driver/net/port-options.js';
import { Feature } from '../../driver/spec/features.js';
import { native } from '../../native/index.js';
import { assertPackets, pattern } from '../support/hand-guest.js';
import { RecordedPort, type Via } from '../support/spec/recorded-port.js';

const test = suite('rings of a port');
const ways: readonly Via[] = ['modern', 'legacy', 'vhost-user'];
const formats = (via: Via) => (via === 'legacy' ? (['split'] as const) : (['split', 'packed'] as const));
const TURNS = 100;

/** Takes back what was sent. */
function takeBack(both: RecordedPort, sent: readonly Uint8Array[]): void {
  const came: Uint8Array[] = [];
  for (let turn = 0; turn < TURNS && came.length < sent.length; turn++) {
    both.device.poll();
    came.push(...both.receive(0));
  }
  both.check();
  assertPackets(came, sent);
}

for (const ring of ['split', 'packed'] as const) {
  test(`spec-D10: with ORDER_PLATFORM all that is published is, by sequentially consistent stores (${ring})`, async () => {
    const offered = offeredFeatures({}).with(Feature.ORDER_PLATFORM);
    const options: PortOptions = { ring, demand: [Feature.ORDER_PLATFORM] };
    await using both = await RecordedPort.open('modern', { offered, maxRingSize: 64 }, options);
    await both.start();
    assert.ok(both.port.features?.has(Feature.ORDER_PLATFORM));
    const { store } = Atomics;
    let published = 0;
    // A publication is seen right after the store that made it, and never without one.
    Atomics.store = ((array: Int32Array, position: number, value: number): number => {
      const before = both.device.published;
      both.device.look();
      assert.is(both.device.published, before, 'a chain was there before the store that publishes it');
      store(array, position, value);
      both.device.look();
      published += both.device.published - before;
      return value;
    }) as typeof Atomics.store;
    const sent: Uint8Array[] = [];
    try {
      both.port.rxQueue(0);
      for (let number = 0; number < 20; number++) {
        const packet = pattern(number, 60 + number);
        assert.ok(both.send(0, number % 2 === 0 ? [packet] : [packet.subarray(0, 20), packet.subarray(20)]));
        sent.push(packet);
      }
      const before = both.device.published;
      both.device.look();
      assert.is(both.device.published, before, 'nothing is published without a store');
    } finally {
      Atomics.store = store;
    }
    assert.ok(published >= sent.length, `${published} chains`);
    takeBack(both, sent);
    both.check();
  });
}

for (const via of ways) {
  for (const ring of formats(via)) {
    test(`spec-D25, spec-E10: chains of many descriptors, in order where IN_ORDER is accepted (${via}, ${ring})`, async () => {
      const offered = offeredFeatures({}).with(Feature.IN_ORDER);
      await using both = await RecordedPort.open(
        via,
        { offered, maxRingSize: 16 },
        { ring, ringSize: 16, indirect: false },
      );
      await both.start();
      for (let round = 0; round < 40; round++) {
        const packets = [round, round + 1, round + 2].map((number) => pattern(number, 400));
        for (const [index, packet] of packets.entries()) {
          const at = [0, 20, 150, 290].slice(0, 1 + ((round + index) % 4));
          const pieces = at.map((from, piece) => packet.subarray(from, at[piece + 1]));
          assert.ok(both.send(0, pieces));
        }
        takeBack(both, packets);
      }
      both.check();
    });

    for (const eventIndex of [false, true]) {
      const name = `${via}, ${ring}, EVENT_IDX ${eventIndex}`;
      test(`spec-D27: who sleeps is kicked, and who does not is left alone (${name})`, async () => {
        const device = { offered: offeredFeatures({}), maxRingSize: 64 };
        await using both = await RecordedPort.open(via, device, { ring, eventIndex });
        await both.start();
        both.port.rxQueue(0);
        both.device.poll();
        for (let round = 0; round < 50; round++) {
          const isAsleep = round % 3 !== 0;
          both.device.wantKicks(isAsleep);
          const before = both.port.statistics().tx[0]!.kicksSent;
          const packet = pattern(round, 100);
          both.send(0, [packet]);
          const kicks = both.port.statistics().tx[0]!.kicksSent - before;
          assert.is(kicks, isAsleep ? 1 : 0, `round ${round}`);
          both.device.wantKicks(false);
          takeBack(both, [packet]);
        }
        both.check();
      });

      test(`spec-D28: calls with nothing behind them end no wait and cost no packet (${name})`, async () => {
        const device = { offered: offeredFeatures({}), maxRingSize: 64 };
        await using both = await RecordedPort.open(via, device, { ring, eventIndex, interrupts: 'receive' });
        await both.start();
        const rx = both.port.rxQueue(0);
        both.device.poll();
        const waiting = rx.waitForPackets({ timeoutMs: 60_000 });
        let isOver = false;
        void waiting.then(() => {
          isOver = true;
        });
        for (let round = 0; round < 10; round++) {
          native.signalEventFd(rx.interruptFd!);
          await delay(1);
        }
        assert.is(isOver, false, 'it waits on');
        assert.equal(both.receive(0), []);
        const packet = pattern(1, 100);
        both.send(0, [packet]);
        both.device.poll();
        assert.is(await waiting, true);
        takeBack(both, [packet]);
        both.check();
      });
    }
  }
}

test.run();
