/** The source and the sink: rates, lengths, flows, and what a receiver finds out about packets on their way. */

import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { sinkPort, sourcePort } from '../../driver/backend/ports/built-in.js';
import { CATCH_UP_MS, Pacer } from '../../driver/backend/ports/pacer.js';
import { SequenceOutcome, SequenceWindow, WINDOW } from '../../driver/backend/ports/sequence-window.js';
import * as sink from '../../driver/backend/ports/sink.js';
import * as source from '../../driver/backend/ports/source.js';
import { ErrorCode, VirtioError } from '../../driver/errors.js';
import { openPort } from '../../driver/open.js';
import { type HarnessOptions, PortHarness } from '../support/backend-port-harness.js';

const test = suite('source and sink ports');

/** What a source sends on one pair. */
function packetsOf(options: Parameters<typeof sourcePort>[0], harness?: HarnessOptions, pair = 0): Uint8Array[] {
  using sender = new PortHarness(source, sourcePort(options).options, harness);
  const packets: Uint8Array[] = [];
  for (let turn = sender.turn(pair); turn.length > 0; turn = sender.turn(pair)) packets.push(...turn);
  return packets;
}

/** What a verifying sink counts of packets. */
function counted(packets: readonly Uint8Array[], harness?: HarnessOptions): Record<string, number> {
  const spec = sinkPort({ verify: true });
  using receiver = new PortHarness(sink, spec.options, harness);
  receiver.give(packets);
  const { receivedBytes, ...rest } = spec.statistics();
  assert.is(
    receivedBytes,
    packets.reduce((sum, { length }) => sum + length, 0),
  );
  return Object.fromEntries(Object.entries(rest).filter(([, count]) => count !== 0));
}

const u16 = (packet: Uint8Array, at: number): number => packet[at]! * 256 + packet[at + 1]!;

test('packets are verified as they were sent, of any length and protocol, in any pieces', () => {
  for (const protocol of ['ethernet', 'udp'] as const) {
    for (const bytes of [56, 57, 58, 59, 60, 64, 65, 66, 67, 1514, 2100, 'imix'] as const) {
      const packets = packetsOf({ bytes, protocol, packets: 100 });
      assert.is(packets.length, 100);
      const good = { received: 100, good: 100, begun: 1 };
      assert.equal(counted(packets), good, `${bytes} ${protocol}`);
      if (bytes !== 'imix') {
        const pieces = { segmentBytes: 61, bufferBytes: 256, poolSize: 2000 };
        assert.equal(counted(packets, pieces), good, `${bytes} ${protocol}, in pieces`);
      }
    }
  }
});

test('no two packets are alike, nor two words of one', () => {
  const packets = packetsOf({ bytes: 1514, packets: 64 });
  const payloads = new Set(packets.map((packet) => Buffer.from(packet).toString('hex', 28)));
  assert.is(payloads.size, 64);
  const words = new Set(Array.from({ length: 371 }, (_, word) => Buffer.from(packets[5]!).readUInt32LE(28 + 4 * word)));
  assert.is(words.size, 371);
});

test('any byte of a packet that changes is found; addresses may', () => {
  for (const protocol of ['ethernet', 'udp'] as const) {
    const [packet] = packetsOf({ bytes: 100, protocol, packets: 1 });
    for (let at = 0; at < 100; at++) {
      for (const bit of [0, 7]) {
        const changed = Uint8Array.from(packet!);
        changed[at]! ^= 1 << bit;
        const counts = counted([changed]);
        const isFound = counts['good'] === undefined && (counts['corrupted'] === 1 || counts['foreign'] === 1);
        const isHeader = at < 12 || (protocol === 'udp' && at > 14 && at < 42 && at !== 23);
        // Stream and run name a sender, of which there may be any; the bytes behind follow from the stream.
        const isRun = at - (protocol === 'udp' ? 42 : 14) === 12 || at - (protocol === 'udp' ? 42 : 14) === 13;
        assert.is(isFound, !isHeader && !isRun, `byte ${at} of ${protocol}: ${JSON.stringify(counts)}`);
      }
    }
  }
});

test('packets that are cut off or made longer are found; padding of short ones is none', () => {
  const [packet] = packetsOf({ bytes: 100, packets: 1 });
  assert.equal(counted([packet!.slice(0, 99)]), { received: 1, corrupted: 1, begun: 1 });
  assert.equal(counted([Uint8Array.of(...packet!, 0)]), { received: 1, corrupted: 1, begun: 1 });
  assert.equal(counted([packet!.slice(0, 27)]), { received: 1, foreign: 1 });
  const [short] = packetsOf({ bytes: 30, packets: 1 });
  assert.equal(counted([Uint8Array.from({ length: 60 }, (_, at) => short![at] ?? 0)]), {
    received: 1,
    good: 1,
    begun: 1,
  });
});

test('lost, late, twice, and of somebody else', () => {
  const packets = packetsOf({ packets: 2000 });
  const [first, second] = [packets[0]!, packets[1]!];
  assert.equal(counted([first, packets[5]!]), { received: 2, good: 2, begun: 1, lost: 4 });
  assert.equal(counted([first, packets[2]!, second]), { received: 3, good: 3, begun: 1, late: 1 });
  assert.equal(counted([first, second, second]), { received: 3, good: 2, begun: 1, duplicate: 1 });
  const junk = Uint8Array.from({ length: 64 }, (_, at) => at);
  assert.equal(counted([junk, first]), { received: 2, good: 1, begun: 1, foreign: 1 });
  const damaged = Uint8Array.from(second);
  damaged[40]! ^= 1;
  // What comes damaged is not lost, too.
  assert.equal(counted([first, damaged, packets[2]!]), { received: 3, good: 2, begun: 1, corrupted: 1 });
  // A sender that starts again.
  const again = packetsOf({ packets: 3 });
  if (u16(again[0]!, 26) !== u16(first, 26)) {
    assert.equal(counted([...packets, ...again]), { received: 2003, good: 2003, begun: 2 });
  }
  assert.equal(counted([...packets.slice(10, 20), packets[3]!]), { received: 11, good: 11, begun: 1 });
});

test('streams of several pairs and several sources are told apart', () => {
  const pairs = { queuePairs: 2 };
  const packets = [0, 1].flatMap((pair) => [0, 2].map((stream) => packetsOf({ packets: 10, stream }, pairs, pair)));
  const mixed = Array.from({ length: 40 }, (_, index) => packets[index % 4]![index >> 2]!);
  assert.equal(counted(mixed), { received: 40, good: 40, begun: 4 });
});

test('flows: source addresses take turns, and headers are right', () => {
  for (const protocol of ['ethernet', 'udp'] as const) {
    const packets = packetsOf({
      bytes: 64,
      protocol,
      flows: 3,
      packets: 9,
      source: Uint8Array.of(2, 0, 0, 0, 0xff, 2),
    });
    const macs = packets.map((packet) => Buffer.from(packet).toString('hex', 6, 12));
    assert.equal(macs.slice(0, 4), ['02000000ff02', '020000010002', '020000010102', '02000000ff02']);
    assert.is(new Set(macs).size, 3);
    if (protocol === 'ethernet') continue;
    assert.is(new Set(packets.map((packet) => Buffer.from(packet).toString('hex', 26, 30))).size, 3);
    assert.is(new Set(packets.map((packet) => u16(packet, 34))).size, 3);
    for (const packet of packets) {
      let sum = 0;
      for (let at = 14; at < 34; at += 2) sum += u16(packet, at);
      assert.is((sum & 0xffff) + (sum >>> 16), 0xffff, 'the header checksum is right');
      assert.is(u16(packet, 16), 50);
      assert.is(u16(packet, 38), 30);
    }
  }
});

test('a pair that goes to another thread goes on with its numbers', () => {
  const spec = sourcePort({ packets: 100 });
  const checked = sinkPort({ verify: true });
  using receiver = new PortHarness(sink, checked.options);
  using one = new PortHarness(source, spec.options);
  using other = new PortHarness(source, spec.options);
  receiver.give(one.turn(0, 40));
  other.port.adoptPair!(0, structuredClone(one.port.releasePair!(0)));
  receiver.give([...other.turn(), ...other.turn()]);
  const { received, good, begun, lost } = checked.statistics();
  assert.equal({ received, good, begun, lost }, { received: 100, good: 100, begun: 1, lost: 0 });
});

test('imix is 64, 594 and 1518 bytes as 7:4:1', () => {
  const counts = new Map<number, number>();
  for (const { length } of packetsOf({ bytes: 'imix', packets: 120 }))
    counts.set(length, (counts.get(length) ?? 0) + 1);
  assert.equal(
    counts,
    new Map([
      [64, 70],
      [594, 40],
      [1518, 10],
    ]),
  );
});

test('a source counts what it sends, by pair, and stops at its number', () => {
  const spec = sourcePort({ bytes: 100, packets: 150 });
  using sender = new PortHarness(source, spec.options, { queuePairs: 2 });
  assert.equal(
    [sender.turn(1), sender.turn(1), sender.turn(1), sender.turn(1)].map(({ length }) => length),
    [64, 64, 22, 0],
  );
  sender.turn(0, 5);
  assert.equal([spec.statistics(0).sent, spec.statistics(1).sent, spec.statistics().sentBytes], [5, 150, 15_500]);
});

test('options that cannot be', () => {
  for (const options of [
    { bytes: 13 },
    { bytes: 2101 },
    { bytes: 64.5 },
    { bytes: 55, protocol: 'udp' },
    { rate: 0 },
    { rate: Number.NaN },
    { bitRate: -1 },
    { rate: 1, bitRate: 1 },
    { flows: 0 },
    { flows: 65_535 },
    { stream: 1024 },
    { packets: -1 },
    { destination: new Uint8Array(5) },
  ] as const) {
    try {
      new PortHarness(source, options);
      assert.unreachable(JSON.stringify(options));
    } catch (error) {
      assert.is(error instanceof VirtioError && error.code, ErrorCode.INVALID_ARGUMENT, JSON.stringify(options));
    }
  }
});

/** Units sent in each window of 100 ms when the clock is looked at every `step` ms, but for a pause. */
function windows(pacer: Pacer, seconds: number, step: number, most: number, pause?: [number, number]): number[] {
  const sent = new Array<number>(seconds * 10).fill(0);
  for (let now = 0; now < seconds * 1000; now += step) {
    if (pause !== undefined && now >= pause[0] && now < pause[1]) continue;
    const due = Math.min(Math.floor(pacer.due(0, now)), most);
    pacer.spend(0, due);
    sent[Math.floor(now / 100)]! += due;
  }
  return sent;
}

test('a rate is held in every window of 100 ms, whatever it is and however often the clock is looked at', () => {
  for (const rate of [50, 1000, 148_810, 1_488_095]) {
    for (const step of [0.01, 0.3, 1, 7]) {
      const sent = windows(new Pacer(rate, 1, 1), 2, step, Number.POSITIVE_INFINITY);
      // Time begins with the first look; a look may be a step late.
      for (const [window, units] of sent.entries()) {
        const error = Math.abs(units - rate / 10);
        assert.ok(
          error <= (rate * step) / 1000 + 1.001,
          `${units} of ${rate / 10} in window ${window}, looks every ${step} ms`,
        );
      }
    }
  }
});

test('what was missed is made up for within bounds', () => {
  const rate = 100_000;
  const sent = windows(new Pacer(rate, 1, 1), 2, 0.1, Number.POSITIVE_INFINITY, [500, 1010]);
  assert.ok(sent[6] === 0 && sent[9] === 0);
  const first = rate / 10 - rate / 100;
  const caughtUp = (rate * CATCH_UP_MS) / 1000;
  assert.ok(Math.abs(sent[10]! - first - caughtUp) < 50, `${sent[10]} after a pause`);
  assert.ok(Math.abs(sent[11]! - rate / 10) < 50, `${sent[11]} afterwards`);
  // A short pause costs nothing at all.
  const short = windows(new Pacer(rate, 1, 1), 1, 0.1, Number.POSITIVE_INFINITY, [500, 515]);
  assert.ok(Math.abs(short.reduce((sum, units) => sum + units) - rate) < 50);
});

test('a bit rate counts the bits of what is sent', async () => {
  const spec = sourcePort({ bytes: 'imix', bitRate: 4_000_000 });
  using sender = new PortHarness(source, spec.options);
  const start = performance.now();
  const bits = (): number => spec.statistics().sentBytes * 8;
  for (const deadline = start + 20_000; bits() < 1_600_000; sender.turn()) {
    assert.ok(performance.now() < deadline, `${bits()} bits in 20 s`);
  }
  const seconds = (performance.now() - start) / 1000;
  // Never above; how far below is the machine's doing.
  assert.ok(bits() <= 4_000_000 * seconds, `${bits()} bits in ${seconds} s`);
});

test('numbers: wrapping, gaps, what is late, and what is too old to tell', () => {
  const window = new SequenceWindow(2);
  const { FIRST, NEW, LATE, DUPLICATE } = SequenceOutcome;
  const note = (number: number, run = 7): [SequenceOutcome, number] => [
    window.note(1, run, number >>> 0),
    window.skipped,
  ];
  assert.is(note(0xffff_fff0)[0], FIRST);
  assert.equal(note(0xffff_fffe), [NEW, 13]);
  assert.equal(note(3), [NEW, 4]);
  assert.is(note(0xffff_ffff)[0], LATE);
  assert.is(note(0xffff_ffff)[0], DUPLICATE);
  assert.is(note(0xffff_fff0)[0], DUPLICATE);
  assert.equal(note(0xffff_ffe0), [NEW, 0]);
  assert.equal(note(3 + WINDOW), [NEW, WINDOW - 1]);
  assert.is(note(4)[0], LATE);
  assert.equal(note(3), [NEW, 0], 'older than is remembered');
  assert.is(note(3, 8)[0], FIRST, 'another run');
  assert.is(window.note(0, 8, 3), FIRST, 'another stream');
});

test('numbers, against a set that remembers all', () => {
  const window = new SequenceWindow(1);
  const seen = new Set<number>();
  let [newest, state, lost] = [0, 12345, 0];
  window.note(0, 0, 0);
  seen.add(0);
  for (let round = 0; round < 50_000; round++) {
    state = (Math.imul(state, 1_103_515_245) + 12_345) & 0x7fff_ffff;
    const number = Math.max(0, newest + ((state >>> 8) % 40) - 30);
    const outcome = window.note(0, 0, number);
    const expected = number > newest ? 'NEW' : seen.has(number) ? 'DUPLICATE' : 'LATE';
    assert.is(outcome, SequenceOutcome[expected], `${number} after ${newest}`);
    if (expected === 'NEW') lost += window.skipped;
    if (expected === 'LATE') lost--;
    seen.add(number);
    newest = Math.max(newest, number);
  }
  assert.is(lost, newest + 1 - seen.size);
});

test('what a source sends comes back through a guest that forwards, verified by the source itself', async () => {
  const spec = sourcePort({ bytes: 'imix', packets: 3000, verify: true, protocol: 'udp', flows: 10 });
  const port = await openPort('loopback:', {
    device: { port: spec, idle: 'yield' },
    ringSize: 64,
    queues: 2,
    pages: '4K',
  });
  try {
    await port.start();
    const burst = port.burst(32);
    for (const deadline = Date.now() + 20_000; spec.statistics().good < 6000; ) {
      assert.ok(Date.now() < deadline, JSON.stringify(spec.statistics()));
      for (const pair of [0, 1]) {
        port.rxQueue(pair).receive(burst);
        while (burst.count > 0) port.txQueue(pair).send(burst);
      }
      await new Promise(setImmediate);
    }
    const { sent, received, good, begun, corrupted, lost, duplicate, foreign } = spec.statistics();
    assert.equal([sent, received, good, begun], [6000, 6000, 6000, 2]);
    assert.equal([corrupted, lost, duplicate, foreign], [0, 0, 0, 0]);
  } finally {
    await port.close();
  }
});

test('a sink counts by pair', () => {
  const spec = sinkPort({ verify: true });
  using receiver = new PortHarness(sink, spec.options, { queuePairs: 2 });
  receiver.give([new Uint8Array(64), new Uint8Array(14)], 1);
  assert.is(spec.statistics(1).foreign, 2);
  assert.is(spec.statistics(0).received, 0);
});

test.run();
