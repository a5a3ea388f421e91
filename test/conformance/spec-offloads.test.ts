/**
 * Packets with work left to do, through driver and device, under the recorders (spec-D33 to D35, E13): as much of it as
 * both have accepted. What nobody has accepted must not be in any header, and that is tested as well.
 */

import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { offeredFeatures } from '../../driver/backend/net-device-offer.js';
import { PacketField, PacketFlag } from '../../driver/memory/packet-fields.js';
import type { Port } from '../../driver/net/port.js';
import type { PortOptions } from '../../driver/net/port-options.js';
import { Feature } from '../../driver/spec/features.js';
import { address4, address6, ipv4, ipv6, tcp, udp } from '../support/flow-packets.js';
import { packetOf } from '../support/offload-packets.js';
import { RecordedPort, type Via } from '../support/spec/recorded-port.js';
import { transportOf } from '../support/spec/transport-header.js';

const test = suite('packets with work left to do');
const TURNS = 100;
const SEGMENT_BYTES = 200;

/** Everything on, by the names that ports have for it; a port that does not know one of them takes no notice. */
const everything = {
  offloads: {
    txChecksum: true,
    tso: true,
    uso: true,
    ufo: true,
    rxChecksum: true,
    lro: true,
    uro: true,
    ufoReceive: true,
    rssHash: true,
  },
};

interface Work {
  readonly name: string;
  readonly packet: Uint8Array;
  /** Flags of the packet, and its segment size. */
  readonly flags: number;
  /** Without all of these the driver is not asked for it. */
  readonly needs: readonly Feature[];
}

const from4 = address4('10.0.0.1');
const to4 = address4('10.0.0.2');
const from6 = address6('fe80:0:0:0:0:0:0:1');
const to6 = address6('fe80:0:0:0:0:0:0:2');

/** A packet with the sum of the pseudo header where the checksum belongs, padded to `bytes` of data. */
function unfinished(packet: Uint8Array, bytes: number): Uint8Array {
  const whole = new Uint8Array(packet.length + bytes);
  whole.set(packet);
  const view = new DataView(whole.buffer);
  const isFour = view.getUint16(12) === 0x0800;
  if (isFour) view.setUint16(16, whole.length - 14);
  else view.setUint16(18, whole.length - 54);
  const { start, checksumOffset } = transportOf(whole)!;
  if (checksumOffset === 16) whole[start + 12] = 0x50;
  else view.setUint16(start + 4, whole.length - start);
  view.setUint16(start + checksumOffset, transportOf(whole)!.pseudoSum);
  return whole;
}

const { NEEDS_CHECKSUM, SEGMENT_TCP4, SEGMENT_TCP6, SEGMENT_UDP, FRAGMENT_UDP } = PacketFlag;
const segmented = (flag: number): number => NEEDS_CHECKSUM | flag | (SEGMENT_BYTES << 16);
const { CSUM, HOST_TSO4, HOST_TSO6, HOST_USO, HOST_UFO } = Feature;

const works: readonly Work[] = [
  { name: 'TCP', packet: unfinished(ipv4(from4, to4, tcp(1, 2)), 100), flags: NEEDS_CHECKSUM, needs: [CSUM] },
  { name: 'UDP', packet: unfinished(ipv4(from4, to4, udp(1, 2)), 33), flags: NEEDS_CHECKSUM, needs: [CSUM] },
  { name: 'TCP of IPv6', packet: unfinished(ipv6(from6, to6, tcp(1, 2)), 5), flags: NEEDS_CHECKSUM, needs: [CSUM] },
  {
    name: 'segments of IPv4',
    packet: unfinished(ipv4(from4, to4, tcp(1, 2)), 900),
    flags: segmented(SEGMENT_TCP4),
    needs: [CSUM, HOST_TSO4],
  },
  {
    name: 'segments of IPv6',
    packet: unfinished(ipv6(from6, to6, tcp(1, 2)), 900),
    flags: segmented(SEGMENT_TCP6),
    needs: [CSUM, HOST_TSO6],
  },
  {
    name: 'segments of UDP',
    packet: unfinished(ipv4(from4, to4, udp(1, 2)), 900),
    flags: segmented(SEGMENT_UDP),
    needs: [CSUM, HOST_USO],
  },
  {
    name: 'fragments of UDP',
    packet: unfinished(ipv6(from6, to6, udp(1, 2)), 900),
    flags: segmented(FRAGMENT_UDP),
    needs: [CSUM, HOST_UFO],
  },
];

/** Sends a packet with its flags; returns whether it went. */
function send(port: Port, { packet, flags }: Work): boolean {
  const burst = port.burst(1);
  burst.allocate(1);
  burst.bytes(0).fill(packet);
  const field = burst.handles[0]! * PacketField.WORDS;
  const { start, checksumOffset } = transportOf(packet)!;
  port.pool.fields[field + PacketField.FLAGS] = flags;
  port.pool.fields[field + PacketField.CHECKSUM] = start | (checksumOffset << 16);
  const isSent = port.txQueue(0).send(burst) === 1;
  burst.free();
  return isSent;
}

for (const [via, ring] of [
  ['modern', 'split'],
  ['modern', 'packed'],
  ['vhost-user', 'split'],
  ['vhost-user', 'packed'],
] as readonly (readonly [Via, 'split' | 'packed'])[]) {
  for (const eventIndex of [false, true]) {
    test(`spec-D33, spec-D34, spec-D35, spec-E13: what is left to do, and what is not (${via}, ${ring}, EVENT_IDX ${eventIndex})`, async () => {
      const options: PortOptions & typeof everything = { ring, eventIndex, ...everything };
      await using both = await RecordedPort.open(via, { offered: offeredFeatures({}), maxRingSize: 64 }, options);
      await both.start();
      const { port } = both;
      const accepted = works.filter(({ needs }) => needs.every((feature) => port.features!.has(feature)));
      let came = 0;
      let sent = 0;
      for (let round = 0; round < 10; round++) {
        for (const work of accepted) {
          assert.ok(send(port, work), work.name);
          sent++;
          for (let turn = 0; turn < TURNS && came < sent; turn++) {
            both.device.poll();
            came += both.receive(0).length;
          }
          // A device may give the guest its segments, one packet each.
          assert.ok(came >= sent, `${work.name} comes back`);
          came = sent;
        }
      }
      // With nothing accepted, flags that a packet was received with must not get into a header again.
      for (const work of works.filter((each) => !accepted.includes(each) && each.packet.length <= 300)) {
        if (accepted.length === 0) send(port, work);
      }
      for (let turn = 0; turn < TURNS; turn++) {
        both.device.poll();
        both.receive(0);
      }
      both.check();
    });
  }
}

for (const ring of ['split', 'packed'] as const) {
  test(`spec-E13, spec-D36: segments that follow on one another come as one with RSC_EXT, and one by one without (${ring})`, async () => {
    for (const without of [[], [Feature.RSC_EXT]]) {
      const options: PortOptions & typeof everything = { ring, ...everything };
      const offered = offeredFeatures({ without });
      await using both = await RecordedPort.open('modern', { offered, maxRingSize: 64 }, options);
      await both.start();
      const { port } = both;
      const segments = [0, 1, 2, 3].map((index) => ({
        ...{ version: 4 as const, protocol: 'tcp' as const, payload: new Uint8Array(1000).fill(index) },
        ...{ sequence: 1000 * index, identification: index },
      }));
      const burst = port.burst(4);
      burst.allocate(4);
      for (const [index, shape] of segments.entries()) burst.bytes(index).fill(packetOf(shape));
      assert.is(port.txQueue(0).send(burst), 4);
      const received = port.burst(8);
      for (let turn = 0; turn < TURNS; turn++) {
        both.device.poll();
        port.rxQueue(0).receive(received);
      }
      const of = (field: number): number => port.pool.fields[received.handles[0]! * PacketField.WORDS + field]!;
      if (without.length > 0) {
        assert.is(received.count, 4);
      } else {
        assert.is(received.count, 1);
        const payload = new Uint8Array(4000).map((_, at) => Math.floor(at / 1000));
        assert.equal(received.bytes(0).copyPacket(), packetOf({ ...segments[0]!, payload }));
        const flags = PacketFlag.COALESCED | PacketFlag.CHECKSUM_VALID | SEGMENT_TCP4;
        assert.is(of(PacketField.FLAGS), flags | (1000 << 16));
        assert.is(of(PacketField.CHECKSUM), 4, 'segments, no duplicate acknowledgments');
      }
      received.free();
      both.check();
    }
  });
}

test.run();
