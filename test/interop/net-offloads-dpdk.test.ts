/** Offloads through DPDK's vhost and back: it reads our headers into its own flags, and writes headers of those for us. */

import { join } from 'node:path';
import { setImmediate as turn } from 'node:timers/promises';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { OffloadRequests, openPort, PacketField, PacketFlag, PacketView, type Port } from '../../driver/index.js';
import { type PacketShape, packetOf, place, placesOf, transportChecksum } from '../support/offload-packets.js';
import { skipWithout } from '../support/skip.js';
import { withFolder } from '../support/temp-folder.js';
import { Testpmd } from '../support/testpmd.js';

export const timeBoundSeconds = 180;

const test = skipWithout(suite('offloads with DPDK'), 'dpdk');
const { FLAGS, CHECKSUM, WORDS } = PacketField;
const { NEEDS_CHECKSUM, SEGMENT_TCP4, SEGMENT_TCP6 } = PacketFlag;
const WAIT_MS = 20_000;

interface Returned {
  readonly bytes: Uint8Array;
  readonly flags: number;
  readonly size: number;
  readonly checksum: number;
}

/** Sends packets and resolves to what comes back, in order. */
async function exchange(port: Port, handles: readonly number[], count: number): Promise<Returned[]> {
  const burst = port.burst(32);
  const back: Returned[] = [];
  burst.handles.set(handles);
  burst.count = handles.length;
  const deadline = Date.now() + WAIT_MS;
  while (burst.count > 0 && Date.now() < deadline) {
    port.txQueue(0).send(burst);
    await turn();
  }
  const view = new PacketView(port.pool);
  while (back.length < count && Date.now() < deadline) {
    port.rxQueue(0).receive(burst);
    for (const handle of burst.handles.subarray(0, burst.count)) {
      const flags = port.pool.fields[handle * WORDS + FLAGS]!;
      const checksum = port.pool.fields[handle * WORDS + CHECKSUM]!;
      back.push({ bytes: view.move(handle).copyPacket(), flags: flags & 0xffff, size: flags >>> 16, checksum });
    }
    burst.free();
    await turn();
  }
  return back;
}

/** A port over testpmd's `net_vhost`, which sends everything back as it came, offloads and all. */
const withPeer = (tso: boolean, ring: 'split' | 'packed', body: (port: Port) => Promise<void>): Promise<void> =>
  withFolder(async (folder) => {
    const path = join(folder, 'socket');
    const vdev = `net_vhost0,iface=${path},queues=1,legacy-ol-flags=1${tso ? ',tso=1' : ''}`;
    const testpmd = await Testpmd.start({
      vdevs: [vdev],
      options: ['--port-topology=loop', '--total-num-mbufs=16384'],
    });
    try {
      const offloads = { txChecksum: true, tso: true, rxChecksum: true, lro: true };
      await using port = await openPort(`vhost-user:${path}`, { offloads, ring, ringSize: 256, timeoutMs: WAIT_MS });
      await port.start();
      // Only a queue that somebody has taken has buffers.
      port.rxQueue(0);
      await testpmd.waitFor(/virtio is now ready for processing/);
      await testpmd.command('start', /io packet forwarding[\s\S]*testpmd> /);
      await body(port);
    } finally {
      await testpmd.quit();
    }
  });

const shapes: readonly (readonly [PacketShape, number])[] = [
  [
    { version: 4, protocol: 'tcp', payload: new Uint8Array(50_000).map((_, at) => at * 7), tcpOptions: 3 },
    SEGMENT_TCP4,
  ],
  [{ version: 6, protocol: 'tcp', payload: new Uint8Array(20_000).map((_, at) => at * 5) }, SEGMENT_TCP6],
];

for (const ring of ['split', 'packed'] as const) {
  test(`${ring}: checksums and long packets go through it as what they are, both ways`, () =>
    withPeer(true, ring, async (port) => {
      const by = Object.fromEntries(port.offloads.map((each) => [each.name, each.by]));
      assert.equal(
        [by['txChecksum'], by['tso'], by['rxChecksum'], by['lro']],
        ['device', 'device', 'device', 'device'],
      );
      const requests = new OffloadRequests(port.pool);
      for (const [shape, flag] of shapes) {
        const small: PacketShape = { ...shape, payload: Uint8Array.of(1, 2, 3) };
        const handles = [place(port.pool, packetOf(small)), place(port.pool, packetOf(shape))];
        assert.ok(requests.checksum(handles[0]!) && requests.segmentation(handles[1]!, 1400));
        const [first, second] = await exchange(port, handles, 2);
        const { transport } = placesOf(shape);
        for (const [returned, sent] of [[first, small] as const, [second, shape] as const]) {
          const expected = packetOf(sent);
          // DPDK has the pseudo header of a long packet without its length, as NICs want it.
          const without = sent === shape ? expected.length - transport : 0;
          const partial = transportChecksum(expected, sent, true) - without;
          new DataView(expected.buffer).setUint16(transport + 16, partial < 0 ? partial + 0xffff : partial);
          assert.is(returned?.checksum, transport | (16 << 16));
          assert.equal(Buffer.from(returned!.bytes).compare(expected), 0, 'bytes');
        }
        assert.equal([first!.flags, first!.size], [NEEDS_CHECKSUM, 0]);
        assert.equal([second!.flags, second!.size], [NEEDS_CHECKSUM | flag, 1400]);
      }
    }));
}

test('without tso at its side the driver cuts, and right segments come back', () =>
  withPeer(false, 'split', async (port) => {
    assert.is(port.offloads.find(({ name }) => name === 'tso')?.by, 'driver');
    const requests = new OffloadRequests(port.pool);
    for (const [shape] of shapes) {
      const handle = place(port.pool, packetOf(shape));
      assert.ok(requests.segmentation(handle, 1400));
      const count = Math.ceil(shape.payload.length / 1400);
      const back = await exchange(port, [handle], count);
      assert.is(back.length, count);
      const { payload } = placesOf(shape);
      const joined = Buffer.concat(back.map(({ bytes }) => bytes.subarray(payload)));
      assert.is(joined.compare(shape.payload), 0, 'payload');
    }
  }));

test.run();
