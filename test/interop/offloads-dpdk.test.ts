/** DPDK's driver leaves checksums and segments to us: what a capture stores of it is complete. */

import { join } from 'node:path';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';

import { DeviceThread } from '../../driver/backend/device-thread.js';
import { NetDevice } from '../../driver/backend/net-device.js';
import { pcapPort } from '../../driver/backend/ports/built-in.js';
import type { ServerEvent } from '../../driver/backend/vhost-user-events.js';
import { VhostUserServer } from '../../driver/backend/vhost-user-server.js';
import { PcapReader } from '../../driver/pcap/pcap-reader.js';
import { PcapWriter } from '../../driver/pcap/pcap-writer.js';
import { Feature } from '../../driver/spec/features.js';
import { receiveqIndex, transmitqIndex } from '../../driver/spec/net-config.js';
import { type PacketShape, packetOf, placesOf, transportChecksum } from '../support/offload-packets.js';
import { skipWithout } from '../support/skip.js';
import { withFolder } from '../support/temp-folder.js';
import { Testpmd } from '../support/testpmd.js';
import { until } from '../support/until.js';

export const timeBoundSeconds = 120;

const test = skipWithout(suite('offloads of a DPDK front-end'), 'dpdk');

const SEGMENT = 800;
const PACKETS = 40;
const LENGTHS = [1, 60, SEGMENT, SEGMENT + 1, 4000, 7999];

/** TCP and UDP over both versions of IP; what is longer than a segment is TCP over IPv4, all that testpmd cuts by one command. */
const SHAPES: readonly PacketShape[] = Array.from({ length: PACKETS }, (_, number) => {
  const length = LENGTHS[number % LENGTHS.length]!;
  const payload = Uint8Array.from({ length }, (_byte, at) => (number * 31 + at) & 0xff);
  if (length > SEGMENT) return { version: 4, protocol: 'tcp', payload, sequence: 1000 * number };
  return { version: number % 2 === 0 ? 4 : 6, protocol: number % 3 === 0 ? 'udp' : 'tcp', payload };
});

/** How many packets one of them becomes. */
const segmentsOf = ({ payload }: PacketShape): number => Math.max(1, Math.ceil(payload.length / SEGMENT));
const SEGMENTS = SHAPES.reduce((sum, shape) => sum + segmentsOf(shape), 0);

test('testpmd with `csum set … hw` and `tso set`: every checksum is made here, and every long packet is cut here', () =>
  withFolder(async (folder) => {
    const [input, output, path] = ['in.pcap', 'out.pcap', 'socket'].map((name) => join(folder, name)) as [
      string,
      string,
      string,
    ];
    const writer = PcapWriter.create(input);
    for (const shape of SHAPES) {
      const bytes = packetOf(shape);
      // Wrong, so that a packet which nobody has completed is found out.
      bytes[placesOf(shape).transport + (shape.protocol === 'tcp' ? 16 : 6)]! ^= 0x55;
      writer.write(bytes, 0n);
    }
    writer.close();
    const thread = await DeviceThread.start();
    const ending: (() => Promise<unknown>)[] = [() => thread.stop()];
    try {
      const events: ServerEvent[] = [];
      let device: NetDevice | undefined;
      const port = pcapPort({ input, output });
      const server = await VhostUserServer.listen(path, {
        createDevice: () => {
          device = new NetDevice(thread, { port });
          return device;
        },
        onEvent: (event) => void events.push(event),
      });
      ending.push(() => server.close());
      const testpmd = await Testpmd.start({
        vdevs: [`net_virtio_user0,path=${path},mac=02:00:00:00:02:01`],
        options: [
          ...['--forward-mode=csum', '--port-topology=loop', '--mbuf-size=9728', '--max-pkt-len=9000'],
          // The capture is sent once: testpmd throws away what it finds at a start, or at a stop.
          ...['--disable-device-start', '--no-flush-rx'],
        ],
        megabytes: 192,
      });
      ending.push(() => testpmd.quit());
      for (const what of ['tcp hw', 'udp hw', 'ip sw']) await testpmd.command(`csum set ${what} 0`, /testpmd> /);
      await testpmd.command(`tso set ${SEGMENT} 0`, /testpmd> /);
      await testpmd.command('port start 0', /Done/);
      await testpmd.command('start', /csum packet forwarding/);
      await testpmd.waitFor(/testpmd> /);
      const accepted = events.filter((event) => event.type === 'features').at(-1);
      for (const feature of [Feature.CSUM, Feature.HOST_TSO4, Feature.HOST_TSO6])
        assert.ok(accepted?.features.has(feature), `${accepted?.features}`);
      // Packets are counted when they are taken; a front-end that stops the ring before the last is cut has the rest dropped.
      await until(() => port.statistics().received >= SEGMENTS, 'the last packet, cut');
      assert.is(device!.statistics(transmitqIndex(0)).packets, PACKETS);
      for (const ring of [receiveqIndex(0), transmitqIndex(0)]) assert.is(device!.statistics(ring).drops.offload, 0);
    } finally {
      for (const end of ending.reverse()) await end();
    }
    const stored: Uint8Array[] = [];
    const reader = PcapReader.open(output);
    for (let packet = reader.next(); packet !== undefined; packet = reader.next()) stored.push(packet.bytes);
    reader.close();
    for (const [number, shape] of SHAPES.entries()) {
      const { transport, payload } = placesOf(shape);
      const segments = stored.splice(0, segmentsOf(shape));
      for (const bytes of segments) {
        const at = transport + (shape.protocol === 'tcp' ? 16 : 6);
        const checksum = (bytes[at]! << 8) | bytes[at + 1]!;
        assert.is(checksum, transportChecksum(bytes, shape), `packet ${number}`);
      }
      const joined = Uint8Array.from(Buffer.concat(segments.map((bytes) => bytes.subarray(payload))));
      assert.equal(joined, shape.payload, `packet ${number}`);
    }
    assert.equal(stored, []);
  }));

test.run();
