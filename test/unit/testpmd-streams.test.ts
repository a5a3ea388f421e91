/** The streams of a forwarding lcore: orders that cannot be, queues that go, tags that have no room. */

import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { insertTags } from '../../driver/cli/testpmd/devices/vhost-lcore.js';
import type { LcorePorts } from '../../driver/cli/testpmd/lcore/lcore-ports.js';
import { LcoreStreams } from '../../driver/cli/testpmd/lcore/lcore-streams.js';
import { BurstCounter } from '../../driver/cli/testpmd/lcore/stream.js';
import { Burst } from '../../driver/memory/burst.js';
import { PacketField, PacketFlag } from '../../driver/memory/packet-fields.js';
import { createPool } from '../../driver/net/create-pool.js';
import { createTallies, packetsOf, packetTally, talliesOf } from '../../driver/net/packet-tally.js';
import { plainSettings, RX_PORT, TX_PORT } from '../support/forward-engine.js';

const test = suite('testpmd streams');

function stand() {
  const pool = createPool({ size: 64, bufferBytes: 2176, pages: '4K' });
  let polls = 0;
  let isThere = true;
  const ports = {
    rxQueue: () => {
      if (!isThere) throw new RangeError('no such queue');
      return {
        receive: () => {
          polls += 1;
          return 0;
        },
      };
    },
    txQueue: () => ({ send: () => 0 }),
  } as unknown as LcorePorts;
  const streams = new LcoreStreams(pool, ports, 1, () => undefined);
  const setup = { rxPort: RX_PORT, rxQueue: 0, txPort: TX_PORT, txQueue: 0, index: 0 };
  const counters = new SharedArrayBuffer(BurstCounter.END * 8);
  const order = (burst: number) => ({ streams: [{ setup, counters }], settings: { ...plainSettings, burst } });
  const takeAway = (): void => {
    isThere = false;
  };
  return { streams, order, takeAway, polls: () => polls, close: () => pool.memory.close() };
}

test('an order that cannot be is refused, and what forwards goes on', () => {
  const { streams, order, polls, close } = stand();
  streams.forward(order(32));
  assert.throws(() => streams.forward(order(0)));
  assert.ok(streams.isForwarding);
  streams.turn();
  assert.is(polls(), 1);
  close();
});

test('engines end with their queues, also where there are no others', () => {
  const { streams, order, takeAway, polls, close } = stand();
  streams.forward(order(32));
  takeAway();
  assert.throws(() => streams.renew());
  assert.not.ok(streams.isForwarding);
  streams.turn();
  assert.is(polls(), 0);
  close();
});

test('net_vhost counts the packets that it drops for want of room for their tags', () => {
  const pool = createPool({ size: 64, bufferBytes: 2176, pages: '4K' });
  const burst = new Burst(pool, 2);
  assert.is(burst.allocate(2), 2);
  for (const [index, dataOffset] of [pool.headroom, 12].entries()) {
    const packet = burst.bytes(index).handle << PacketField.WORDS_SHIFT;
    pool.fields[packet + PacketField.DATA_OFFSET] = dataOffset;
    pool.fields[packet + PacketField.SEGMENT_LENGTH] = 60;
    pool.fields[packet + PacketField.PACKET_LENGTH] = 60;
    pool.fields[packet + PacketField.FLAGS] = PacketFlag.VLAN;
  }
  const tallies = talliesOf(createTallies(1), 0);
  insertTags(burst, packetTally(pool, tallies));
  assert.is(burst.count, 1);
  assert.is(burst.bytesTotal, 64);
  assert.is(packetsOf(tallies), 1);
  burst.free();
  assert.is(pool.available, pool.size);
  pool.memory.close();
});

test.run();
