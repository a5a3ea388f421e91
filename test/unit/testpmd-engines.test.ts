/** testpmd's forward modes on packets: bytes in, bytes out. */

import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import type { ForwardSettings } from '../../driver/cli/testpmd/lcore/forward-settings.js';
import { BurstCounter, StreamCounter } from '../../driver/cli/testpmd/lcore/stream.js';
import { PacketFlag } from '../../driver/memory/packet-fields.js';
import {
  EngineBench,
  fromHex,
  PEER_MAC,
  plainPort,
  RX_PORT,
  TX_MAC,
  TX_PORT,
  toHex,
} from '../support/forward-engine.js';
import { modePackets } from '../support/mode-packets.js';

const test = suite('testpmd engines');

const A = '0011223344aa';
const B = '0011223344bb';
const OWN = toHex(TX_MAC);
const PEER = toHex(PEER_MAC);
/** Behind Ethernet: 10.0.0.1 port 1234 to 10.0.0.2 port 5678, "hello world", with right checksums. */
const UDP = '4500002700010000401166c3 0a000001 0a000002 04d2 162e 0013 3ef7 68656c6c6f20776f726c64';
const TCP = '4500002d00010000400666c8 0a000001 0a000002 0050 162e 00000000 00000000 50182000 2175 0000 68656c6c6f';
const UDP_FRAME = fromHex(`${B}${A}0800${UDP}`);

/** Runs one turn of a mode over packets; every buffer must be back in the pool. */
function through(settings: Partial<ForwardSettings>, packets: readonly Uint8Array[]): string[] {
  const bench = new EngineBench(settings);
  const sent = bench.run(packets).map(toHex);
  assert.is(bench.missing, 0, 'no buffer is lost');
  bench.close();
  return sent;
}

const clean = (text: string): string => text.replaceAll(' ', '');

test('io sends packets as they are', () => {
  assert.equal(through({ mode: 'io' }, [UDP_FRAME, fromHex('ff')]), [toHex(UDP_FRAME), 'ff']);
});

test('mac writes the addresses of the transmit port and of its peer', () => {
  assert.equal(through({ mode: 'mac' }, [UDP_FRAME]), [clean(`${PEER}${OWN}0800${UDP}`)]);
});

test('macswap exchanges the addresses', () => {
  assert.equal(through({ mode: 'macswap' }, [UDP_FRAME]), [clean(`${A}${B}0800${UDP}`)]);
});

test('rxonly sends nothing, and counts what came', () => {
  const bench = new EngineBench({ mode: 'rxonly' });
  assert.equal(bench.run([UDP_FRAME, UDP_FRAME]), []);
  assert.is(bench.counters[StreamCounter.RX_PACKETS], 2);
  assert.is(bench.missing, 0);
  bench.close();
});

test('5tswap exchanges addresses and ports behind tags, in IPv4 and IPv6, as far as the packet goes', () => {
  const swapped = '4500002700010000401166c3 0a000002 0a000001 162e 04d2 0013 3ef7 68656c6c6f20776f726c64';
  const ipv6 = (source: string, destination: string, ports: string): string =>
    `86dd6000000000080640${source.padStart(32, '0')}${destination.padStart(32, '0')}${ports}${'00'.repeat(16)}`;
  assert.equal(
    through({ mode: '5tswap' }, [
      fromHex(`${B}${A}8100000588a800070800${UDP}`),
      fromHex(`${B}${A}${ipv6('1', '2', '00010002')}`),
      // Cut off in the middle of the UDP header, and before the end of IPv4's.
      UDP_FRAME.slice(0, 40),
      UDP_FRAME.slice(0, 30),
    ]),
    [
      clean(`${A}${B}8100000588a800070800${swapped}`),
      `${A}${B}${ipv6('2', '1', '00020001')}`,
      clean(`${A}${B}0800${swapped}`).slice(0, 68) + toHex(UDP_FRAME).slice(68, 80),
      clean(`${A}${B}0800${UDP}`).slice(0, 60),
    ],
  );
});

test('txonly makes UDP packets of the lengths of set txpkts', () => {
  const bench = new EngineBench({ mode: 'txonly', segmentBytes: [64], burst: 4 });
  const [first, ...others] = bench.run([]);
  assert.is(first!.length, 64);
  assert.is(
    toHex(first!.subarray(0, 42)),
    clean(`${PEER}${OWN}0800 45000032000000004011ee93 c6120001 c6120002 0009 0009 001e 0000`),
  );
  assert.equal(
    others.map(({ length }) => length),
    [64, 64, 64],
  );
  assert.is(bench.missing, 0);
  bench.close();
});

test('txonly spreads its headers over short segments', () => {
  const bench = new EngineBench({ mode: 'txonly', segmentBytes: [20, 30, 40], burst: 1 });
  const [packet] = bench.run([]);
  assert.is(packet!.length, 90);
  assert.is(toHex(packet!.subarray(0, 24)), clean(`${PEER}${OWN}0800 4500004c0000000040 11`).slice(0, 48));
  assert.is(bench.sentFields[0]!.segments, 3);
  bench.close();
});

test('txonly with several flows varies the source address, which follows from lcore and flow', () => {
  const bench = new EngineBench({ mode: 'txonly', txMultiFlow: true, burst: 3 });
  const sources = bench.run([]).map((packet) => toHex(packet.subarray(26, 30)));
  const first = Number.parseInt(sources[0]!, 16);
  assert.is((first - 1) & 0xffff_00ff, 0xc612_0002 | 0);
  assert.is(new Set(sources).size, 3);
  bench.close();
});

test('txonly with random splits keeps lengths and headers in step', () => {
  const bench = new EngineBench({ mode: 'txonly', segmentBytes: [64, 64], segmentSplit: 'rand', burst: 32 });
  for (const [index, packet] of bench.run([]).entries()) {
    const { segments } = bench.sentFields[index]!;
    assert.is(packet.length, 64 * segments);
    assert.is(Number.parseInt(toHex(packet.subarray(16, 18)), 16), packet.length - 14);
  }
  bench.close();
});

test('flowgen sends no more than its one buffer has of what several segments would have', () => {
  const bench = new EngineBench({ mode: 'flowgen', segmentBytes: [2000, 2000, 2000], flowgenFlows: 1, burst: 4 });
  assert.equal(
    bench.run([]).map(({ length }) => length),
    Array<number>(4).fill(bench.pool.dataBytes),
  );
  bench.close();
});

test('txonly sends as many as there are buffers', () => {
  const bench = new EngineBench({ mode: 'txonly', burst: 32 }, 5);
  assert.is(bench.run([]).length, 5);
  bench.close();
});

test('flowgen frees what comes, and sends flows by destination address; its length has no check sequence', () => {
  const bench = new EngineBench({ mode: 'flowgen', flowgenFlows: 3, burst: 4 });
  const sent = bench.run([UDP_FRAME], 2);
  assert.equal(
    sent.map(({ length }) => length),
    Array(8).fill(60),
  );
  const flows = sent.map((packet) => toHex(packet.subarray(30, 34)));
  const next = (flow: string): string =>
    ({ '0afd0000': '0afd0001', '0afd0001': '0afd0002', '0afd0002': '0afd0000' })[flow]!;
  for (let index = 1; index < flows.length; index++) assert.is(flows[index], next(flows[index - 1]!));
  assert.is(bench.counters[StreamCounter.RX_PACKETS], 1);
  assert.is(bench.missing, 0);
  bench.close();
});

test('flowgen sends clones of a packet, and the next flow is as many further', () => {
  const bench = new EngineBench({ mode: 'flowgen', flowgenFlows: 1024, flowgenClones: 2, burst: 6 });
  const flows = bench.run([]).map((packet) => Number.parseInt(toHex(packet.subarray(30, 34)), 16));
  const [first] = flows;
  assert.equal(
    flows.map((flow) => (flow - first! + 1024) % 1024),
    [0, 0, 0, 3, 3, 3],
  );
  bench.close();
});

const ping = (destination: string, sum: string): string =>
  `4500 0025 0001 0000 4001 ${sum} 0a000001 ${destination} 0800 e2d4 0003 0007 70696e672064617461`;

test('icmpecho answers pings with what was asked, and ARP with the address of its port', () => {
  const arp = '0806 0001 0800 06 04 0001';
  assert.equal(
    through({ mode: 'icmpecho' }, [
      fromHex(`${B}${A}0800${ping('0a000002', '66d5')}`),
      fromHex(`ffffffffffff${A}${arp}${A}0a000001 000000000000 0a000009`),
      UDP_FRAME,
      // An answer gets none.
      fromHex(`ffffffffffff${A}${arp.replace(/1$/, '2')}${A}0a000001 000000000000 0a000009`),
      // Cut off.
      fromHex(`ffffffffffff${A}${arp}${A}0a0000`),
    ]),
    [
      clean(`${A}${B}0800 4500 0025 0001 0000 4001 66d5 0a000002 0a000001 0000 ead4 0003 0007 70696e672064617461`),
      clean(`${A}${OWN}${arp.replace(/1$/, '2')} ${OWN} 0a000009 ${A} 0a000001`),
    ],
  );
});

test('icmpecho answers pings to a group from a neighbour of who asked, with a new checksum', () => {
  const [answer] = through({ mode: 'icmpecho' }, [fromHex(`${B}${A}0800${ping('e0000005', '90d1')}`)]);
  assert.is(answer!.slice(52, 68), '0a0000020a000001');
  assert.is(answer!.slice(48, 52), '66d5');
});

test('csum puts checksums of IPv4, UDP and TCP right', () => {
  const bad = fromHex(`${B}${A}0800${UDP}`);
  bad.set([0x12, 0x34], 24);
  bad.set([0x43, 0x21], 40);
  const badTcp = fromHex(`${B}${A}81000005 0800${TCP}`);
  badTcp.set([0, 0], 54);
  assert.equal(through({ mode: 'csum' }, [bad, badTcp]), [
    clean(`${PEER}${OWN}0800${UDP}`),
    clean(`${PEER}${OWN}81000005 0800${TCP}`),
  ]);
});

test('csum gives UDP without a checksum none, and leaves what is cut off alone', () => {
  const without = fromHex(`${B}${A}0800${UDP}`);
  without.set([0, 0], 40);
  const [kept, cut] = through({ mode: 'csum' }, [without, UDP_FRAME.slice(0, 36)]);
  assert.is(kept!.slice(80, 84), '0000');
  assert.is(cut!.slice(24), toHex(UDP_FRAME.slice(12, 36)));
});

const offloaded = (txOffloads: bigint, tsoSegmentBytes = 0): Partial<ForwardSettings> => ({
  mode: 'csum',
  ports: new Map([
    [RX_PORT, plainPort],
    [TX_PORT, { ...plainPort, txOffloads, tsoSegmentBytes, swapsMacs: false }],
  ]),
});

test('csum leaves checksums to a port that makes them: the pseudo header is in the field (virtio 1.2 §5.1.6.2)', () => {
  const bench = new EngineBench(offloaded(0x4n));
  const [packet] = bench.run([UDP_FRAME]);
  // 10.0.0.1, 10.0.0.2, protocol 17 and 19 bytes.
  assert.is(toHex(packet!.subarray(40, 42)), '1427');
  assert.is(bench.sentFields[0]!.flags, PacketFlag.NEEDS_CHECKSUM);
  assert.is(bench.sentFields[0]!.checksum, 34 | (6 << 16));
  bench.close();
});

test('csum with tso set has TCP cut into segments, where it is longer than one', () => {
  const bench = new EngineBench(offloaded(0n, 4));
  bench.run([fromHex(`${B}${A}0800${TCP}`), UDP_FRAME]);
  assert.is(bench.sentFields[0]!.flags, PacketFlag.NEEDS_CHECKSUM | PacketFlag.SEGMENT_TCP4 | (4 << 16));
  assert.is(bench.sentFields[1]!.flags, 0);
  bench.close();
});

test('csum looks into a tunnel when it is told to, and mends inner and outer header', () => {
  const ports = new Map([
    [RX_PORT, plainPort],
    [TX_PORT, { ...plainPort, parsesTunnels: true, swapsMacs: false }],
  ]);
  const outer = '4500003f00010000402f748a 01010101 02020202 00000800';
  const right = fromHex(`${B}${A}0800${outer}${UDP}`);
  const wrong = right.slice();
  wrong.set([0, 1], 24);
  wrong.set([0, 2], 48);
  wrong.set([0, 3], 64);
  const [mended] = through({ mode: 'csum', ports }, [wrong]);
  assert.is(mended!.slice(48, 52), '748a', 'outer IPv4');
  assert.is(mended!.slice(96, 100), '66c3', 'inner IPv4');
  assert.is(mended!.slice(128, 132), '3ef7', 'inner UDP');
});

test('csum with txsplit sends copies in segments, of which the last takes the rest', () => {
  const bench = new EngineBench({ mode: 'csum', segmentSplit: 'on', segmentBytes: [10, 10] });
  const [packet] = bench.run([UDP_FRAME]);
  assert.is(toHex(packet!), clean(`${PEER}${OWN}0800${UDP}`));
  assert.is(bench.sentFields[0]!.segments, 2);
  assert.is(bench.missing, 0);
  bench.close();
});

test('csum with txsplit sends a packet of no bytes as it is: no copy has one', () => {
  const bench = new EngineBench({ mode: 'csum', segmentSplit: 'on', segmentBytes: [10, 10] });
  // So that handles of another packet are where those of its copy would be.
  bench.run([UDP_FRAME]);
  assert.equal(bench.run([new Uint8Array()]).map(toHex), ['']);
  assert.is(bench.missing, 0);
  bench.close();
});

test('csum tells with verbose what it found and asked', () => {
  const bench = new EngineBench({ ...offloaded(0x4n), verbose: 1 });
  bench.run([UDP_FRAME]);
  const text = bench.text.replace(/mbuf=0x[0-9a-f]+/, 'mbuf=0x0');
  assert.is(
    text,
    '-----------------\nport=0, mbuf=0x0, pkt_len=53, nb_segs=1:\n' +
      'rx: l2_len=14 ethertype=800 l3_len=20 l4_proto=17 l4_len=8 flags=RTE_MBUF_F_RX_L4_CKSUM_UNKNOWN ' +
      'RTE_MBUF_F_RX_IP_CKSUM_UNKNOWN RTE_MBUF_F_RX_OUTER_L4_CKSUM_UNKNOWN \n' +
      'tx: m->l2_len=14 m->l3_len=20 m->l4_len=8\n' +
      'tx: flags=RTE_MBUF_F_TX_UDP_CKSUM RTE_MBUF_F_TX_IPV4 \n',
  );
  bench.close();
});

const noisy = (bufferPackets: number, flushMs = 0): Partial<ForwardSettings> => ({
  mode: 'noisy',
  noisy: { bufferPackets, flushMs, memoryMiB: 1, reads: 1, writes: 1, readWrites: 1 },
});
const numbered = (number: number): Uint8Array => fromHex(`${B}${A}88b5${number.toString(16).padStart(2, '0')}`);
const numbers = (packets: readonly Uint8Array[]): number[] => packets.map((packet) => packet[14]!);

test('noisy without a buffer sends what comes', () => {
  assert.is(through(noisy(0), [UDP_FRAME, UDP_FRAME]).length, 2);
});

test('noisy lets packets wait until its buffer, of one less than its size, is full; the oldest leave first', () => {
  const bench = new EngineBench(noisy(4));
  assert.equal(numbers(bench.run([1, 2, 3].map(numbered))), []);
  assert.is(bench.missing, 3);
  assert.equal(numbers(bench.run([4, 5].map(numbered))), [1, 2]);
  assert.is(bench.missing, 3);
  bench.engine.close?.();
  assert.is(bench.missing, 0, 'what waits is freed at the end');
  bench.close();
});

test('noisy counts as dropped what still waits when it ends', () => {
  const bench = new EngineBench(noisy(8));
  assert.is(bench.run([UDP_FRAME, UDP_FRAME, UDP_FRAME]).length, 0);
  bench.engine.close?.();
  assert.is(bench.counters[StreamCounter.RX_PACKETS], 3);
  assert.is(bench.counters[StreamCounter.FWD_DROPPED], 3);
  assert.is(bench.missing, 0);
  bench.close();
});

test('noisy sends what waits when the time of a flush has come', async () => {
  const bench = new EngineBench(noisy(8, 5));
  assert.equal(numbers(bench.run([1, 2].map(numbered))), []);
  await new Promise((resolve) => setTimeout(resolve, 20));
  assert.equal(numbers(bench.run([])), [1, 2]);
  bench.close();
});

test('what a transmit queue does not take is dropped and counted; with retry it is tried again', () => {
  const packets = Array.from({ length: 8 }, () => UDP_FRAME);
  const dropping = new EngineBench({ mode: 'io' });
  dropping.room = 5;
  assert.is(dropping.run(packets).length, 5);
  assert.is(dropping.counters[StreamCounter.FWD_DROPPED], 3);
  assert.is(dropping.missing, 0);
  dropping.close();
  const retrying = new EngineBench({ mode: 'io', retries: true, retryCount: 2 });
  retrying.room = 3;
  assert.is(retrying.run(packets).length, 8);
  retrying.room = 2;
  assert.is(retrying.run(packets).length, 6, 'once, and twice more');
  assert.is(retrying.counters[StreamCounter.FWD_DROPPED], 2);
  retrying.close();
});

test('tx_vlan set puts a tag into what is sent, where the port inserts them', () => {
  const port = { ...plainPort, txOffloads: 1n, txVlan: 0x123 };
  const ports = new Map([
    [RX_PORT, plainPort],
    [TX_PORT, port],
  ]);
  for (const mode of ['mac', 'macswap', '5tswap', 'txonly', 'flowgen'] as const) {
    const bench = new EngineBench({ mode, ports, burst: 1 });
    bench.run([UDP_FRAME]);
    assert.is(bench.sentFields[0]!.flags, PacketFlag.VLAN, mode);
    assert.is(bench.sentFields[0]!.tag, 0x123, mode);
    bench.close();
  }
});

test('bursts are counted by their size, and cycles of turns that move packets', () => {
  const bench = new EngineBench({ mode: 'io', recordsBursts: true, cyclesPerMs: 1e6 });
  bench.room = 2;
  bench.run([UDP_FRAME, UDP_FRAME, UDP_FRAME]);
  const before = bench.counters[StreamCounter.BUSY_CYCLES]!;
  assert.ok(before > 0);
  bench.run([]);
  assert.is(bench.counters[StreamCounter.BUSY_CYCLES], before);
  assert.is(bench.counters[BurstCounter.RX + 3], 1);
  assert.is(bench.counters[BurstCounter.RX], 1);
  assert.is(bench.counters[BurstCounter.TX + 2], 1);
  bench.close();
});

/** The packets that modes differ on, cut off at every length, and with bytes changed by a generator (LCG of Numerical Recipes). */
function* spoiltPackets(): Generator<Uint8Array> {
  let state = 1;
  const random = (below: number): number => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return state % below;
  };
  for (const packet of modePackets) {
    for (let length = 0; length < Math.min(packet.length, 120); length++) yield packet.slice(0, length);
    for (let round = 0; round < 100; round++) {
      const spoilt = packet.slice();
      for (let change = 0; change < 4; change++) spoilt[12 + random(60)] = random(256);
      yield spoilt;
    }
  }
}

for (const mode of ['mac', 'macswap', '5tswap', 'csum', 'icmpecho'] as const) {
  test(`${mode} stops at no packet, however it is cut off or changed, and loses none`, () => {
    const port = { ...plainPort, parsesTunnels: true, tsoSegmentBytes: 8, tunnelTsoSegmentBytes: 8 };
    const ports = new Map([
      [RX_PORT, plainPort],
      [TX_PORT, port],
    ]);
    const bench = new EngineBench({ mode, ports, verbose: 1 });
    for (const packet of spoiltPackets()) {
      bench.run([packet]);
      bench.text = '';
    }
    assert.is(bench.missing, 0);
    bench.close();
  });
}

test.run();
