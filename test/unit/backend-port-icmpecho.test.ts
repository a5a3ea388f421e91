/** The icmpecho port on packets made by hand: answers, what is left alone, hostile packets, and a guest that pings. */

import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { icmpEchoPort } from '../../driver/backend/ports/built-in.js';
import * as icmpecho from '../../driver/backend/ports/icmpecho.js';
import { ErrorCode, VirtioError } from '../../driver/errors.js';
import { PacketField, PacketFlag } from '../../driver/memory/packet-fields.js';
import { openPort } from '../../driver/open.js';
import { type HarnessOptions, PortHarness } from '../support/backend-port-harness.js';
import {
  advertisement,
  arpReply,
  arpRequest,
  frame,
  GUEST_IP,
  HOST_IP,
  icmpEcho,
  icmpv6Echo,
  ipv4,
  ipv6,
  ping6Reply,
  ping6Request,
  pingReply,
  pingRequest,
  QINQ,
  sealed,
  solicitation,
  VLAN,
} from '../support/echo-packets.js';

const full = process.env['VIRTIO_PMD_FULL'] === '1';
const test = suite('icmpecho port');

const EXCHANGES = [
  ['arp', arpRequest, arpReply],
  ['icmp', pingRequest, pingReply],
  ['neighbour', solicitation, advertisement],
  ['icmpv6', ping6Request, ping6Reply],
] as const;
const TAGS = [[], VLAN, QINQ] as const;

function withPort<T>(
  body: (harness: PortHarness, count: () => Record<string, number>) => T,
  options?: HarnessOptions,
): T {
  const spec = icmpEchoPort();
  using harness = new PortHarness(icmpecho, spec.options, options);
  return body(harness, () => Object.fromEntries(Object.entries(spec.statistics()).filter(([, count]) => count > 0)));
}

test('each request is answered, byte for byte, with its tags, in order', () =>
  withPort((harness, count) => {
    const all = TAGS.flatMap((tags) => EXCHANGES.map(([, ask, answer]) => [ask(tags), answer(tags)] as const));
    const back = harness.bounce(all.map(([ask]) => ask));
    assert.equal(
      back,
      all.map(([, answer]) => answer),
    );
    assert.equal(count(), { arp: 3, icmp: 3, neighbour: 3, icmpv6: 3 });
  }));

test('answers among packets that are dropped stay in order', () =>
  withPort((harness, count) => {
    const junk = frame(
      0x88b5,
      Array.from({ length: 50 }, () => 1),
    );
    const packets = Array.from({ length: 31 }, (_, index) => (index % 3 === 1 ? pingRequest([], index) : junk));
    const expected = packets.flatMap((_, index) => (index % 3 === 1 ? [pingReply([], index)] : []));
    assert.equal(harness.bounce(packets), expected);
    assert.equal(count(), { icmp: expected.length, dropOther: 31 - expected.length });
    assert.equal(harness.bounce([junk, junk]), []);
    assert.equal(harness.bounce([pingRequest()]), [pingReply()]);
  }));

test('the longest ping there can be, over many buffers', () =>
  withPort((harness) => {
    assert.equal(harness.bounce([pingRequest([], 65_507)]), [pingReply([], 65_507)]);
  }));

test('a packet cut at any byte is dropped as malformed, though the rest of it lies behind', () =>
  withPort((harness, count) => {
    let cut = 0;
    for (const tags of TAGS) {
      for (const [kind, ask, answer] of EXCHANGES) {
        const request = ask(tags);
        // Behind the request its buffer holds more of it: whoever reads on finds it whole.
        for (let length = 0; length < request.length; length++, cut++) {
          const back = bounceCut(harness, request, length);
          assert.equal(back, undefined, `${kind} with ${tags.length} bytes of tags, cut to ${length}`);
          assert.is(count()['dropMalformed'], cut + 1, `${kind} with ${tags.length} bytes of tags, cut to ${length}`);
        }
        assert.equal(bounceCut(harness, request, request.length), answer(tags));
      }
    }
  }));

/** Has a packet bounced that says it is shorter than what its buffer holds. */
function bounceCut(harness: PortHarness, bytes: Uint8Array, length: number): Uint8Array | undefined {
  const handle = harness.make(bytes);
  const { fields } = harness.pool;
  fields[handle * PacketField.WORDS + PacketField.SEGMENT_LENGTH] = length;
  fields[handle * PacketField.WORDS + PacketField.PACKET_LENGTH] = length;
  return harness.bounceHandle(handle);
}

test('what a packet asks of checksums and segmentation', () =>
  withPort((harness, count) => {
    // A guest that leaves the checksum to the device: the field holds what it happens to.
    const unfinished = pingRequest();
    unfinished.fill(0, 36, 38);
    assert.equal(harness.bounce([unfinished], 0, PacketFlag.NEEDS_CHECKSUM), [pingReply()]);
    assert.equal(harness.bounce([unfinished]), []);
    const unfinished6 = ping6Request();
    unfinished6.fill(0x5e, 56, 58);
    assert.equal(harness.bounce([unfinished6], 0, PacketFlag.NEEDS_CHECKSUM), [ping6Reply()]);
    for (const flag of [PacketFlag.SEGMENT_TCP4, PacketFlag.SEGMENT_TCP6, PacketFlag.SEGMENT_UDP]) {
      assert.equal(harness.bounce([pingRequest()], 0, flag), []);
    }
    assert.equal(count(), { icmp: 1, icmpv6: 1, dropChecksum: 1, dropOther: 3 });
    // The answer asks for nothing; a tag beside the bytes goes back with it.
    for (const [before, after] of [
      [PacketFlag.NEEDS_CHECKSUM | PacketFlag.VLAN, PacketFlag.VLAN],
      [PacketFlag.CHECKSUM_VALID | PacketFlag.HASH | (1448 << 16), 0],
    ] as const) {
      const handle = harness.make(pingRequest(), before);
      assert.ok(harness.bounceHandle(handle, (fields) => assert.is(fields[PacketField.FLAGS], after)) !== undefined);
    }
  }));

test('a guest that probes for its own address keeps it (RFC 5227, RFC 4862)', () =>
  withPort((harness, count) => {
    const probe = arpRequest();
    probe.fill(0, 28, 32);
    const announcement = arpRequest();
    announcement.set(GUEST_IP, 38);
    const detection = solicitation(
      [],
      Array.from({ length: 16 }, () => 0),
    );
    assert.equal(harness.bounce([probe, announcement, detection]), []);
    assert.equal(count(), { dropProbe: 3 });
  }));

test('an option of the solicitation that never ends, and one that ends beyond the packet', () =>
  withPort((harness, count) => {
    for (const units of [0, 2, 255]) {
      const request = solicitation();
      // Unfinished, so that the checksum does not tell.
      request[14 + 40 + 25] = units;
      assert.equal(harness.bounce([request], 0, PacketFlag.NEEDS_CHECKSUM), []);
    }
    assert.equal(count(), { dropMalformed: 3 });
  }));

test('messages that are shorter than their kind, in packets that are whole', () =>
  withPort((harness, count) => {
    const short4 = [4, 5, 7].map((length) => frame(0x0800, ipv4(1, sealed(icmpEcho(8).slice(0, length), 2))));
    const short6 = [4, 7].map((length) => frame(0x86dd, ipv6(icmpv6Echo(128).slice(0, length))));
    const solicitations = [4, 8, 23].map((length) => frame(0x86dd, ipv6([135, ...Array<number>(length - 1).fill(0)])));
    for (const packet of [...short4, ...short6, ...solicitations]) assert.equal(harness.bounce([packet]), []);
    assert.equal(count(), { dropMalformed: 8 });
  }));

test('an answer that has no room in its buffer is dropped', () => {
  // The advertisement is 86 bytes long, a buffer takes 64.
  withPort(
    (harness, count) => {
      assert.is(harness.pool.dataBytes, 64);
      assert.equal(harness.bounce([solicitation(), pingRequest()]), [pingReply()]);
      assert.equal(count(), { dropNoRoom: 1, icmp: 1 });
    },
    { bufferBytes: 128, headroom: 64 },
  );
});

test('each pair counts for itself', () => {
  const spec = icmpEchoPort();
  using harness = new PortHarness(icmpecho, spec.options, { queuePairs: 128 });
  harness.bounce([pingRequest(), pingRequest()], 127);
  harness.bounce([arpRequest()], 0);
  assert.is(spec.statistics().icmp, 2);
  assert.is(spec.statistics(127).icmp, 2);
  assert.is(spec.statistics(0).icmp, 0);
  assert.is(spec.statistics(0).arp, 1);
});

test('options: an address of its own, and what is none', () => {
  const macAddress = Uint8Array.of(0x06, 1, 2, 3, 4, 5);
  using harness = new PortHarness(icmpecho, { macAddress });
  const [answer] = harness.bounce([arpRequest()]);
  assert.equal(answer!.subarray(6, 12), macAddress);
  assert.equal(answer!.subarray(22, 28), macAddress);
  for (const bad of [Uint8Array.of(1, 2, 3, 4, 5, 6), new Uint8Array(5), new Uint8Array(7)]) {
    try {
      new PortHarness(icmpecho, { macAddress: bad });
      assert.unreachable();
    } catch (error) {
      assert.is(error instanceof VirtioError && error.code, ErrorCode.INVALID_ARGUMENT);
    }
  }
});

/** A generator of numbers that are the same each time (mulberry32). */
function random(seed: number): (below: number) => number {
  let state = seed;
  return (below) => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) % below;
  };
}

test('abuse: requests with bytes changed at random: no error, nothing read from outside, no buffer lost', () => {
  const rounds = full ? 200_000 : 10_000;
  const options = [
    { bufferBytes: 2240 },
    { bufferBytes: 256, segmentBytes: 23 },
    { bufferBytes: 256, segmentBytes: 5 },
  ] as const;
  for (const [seed, option] of options.entries()) {
    withPort(
      (one, count) =>
        withPort((other) => {
          other.pool.bytes.fill(0x3a);
          const next = random(seed + 1);
          for (let round = 0; round < rounds; round++) {
            const [, ask] = EXCHANGES[next(4)]!;
            const whole = ask(TAGS[next(3)]);
            const packet = whole.slice(0, next(4) === 0 ? next(whole.length + 1) : whole.length);
            for (let changes = next(4); changes > 0 && packet.length > 0; changes--)
              packet[next(packet.length)] = next(256);
            // Mostly without looking at checksums: they would find nearly all of it.
            const flags = next(8) === 0 ? next(0x10000) : PacketFlag.NEEDS_CHECKSUM;
            const [first, second] = [one, other].map((harness) => harness.bounce([packet], 0, flags));
            // What lies around a packet differs between the two.
            assert.equal(first, second, `round ${round}`);
          }
          const counts = count();
          assert.is(
            Object.values(counts).reduce((sum, value) => sum + value),
            rounds,
          );
          for (const kind of ['arp', 'icmp', 'icmpv6', 'dropOther', 'dropMalformed', 'dropChecksum']) {
            assert.ok(counts[kind]! > rounds / 1000, `${kind}: ${counts[kind]}`);
          }
        }, option),
      option,
    );
  }
});

test('a guest pings through a device, and what is not answered holds up nothing', async () => {
  const spec = icmpEchoPort();
  const port = await openPort('loopback:', {
    device: { port: spec, idle: 'yield' },
    ringSize: 64,
    queues: 2,
    pages: '4K',
  });
  try {
    await port.start();
    const junk = frame(0x0800, ipv4(17, icmpEcho(8), GUEST_IP, HOST_IP));
    const packets = Array.from({ length: 400 }, (_, index) => (index % 4 === 0 ? pingRequest([], index) : junk));
    const burst = port.burst(16);
    const back: Uint8Array[] = [];
    for (let sent = 0, deadline = Date.now() + 20_000; back.length < 100; ) {
      assert.ok(Date.now() < deadline, `${back.length} answers to ${sent} packets`);
      if (sent < packets.length && burst.allocate(8) > 0) {
        for (let index = 0; index < 8; index++) burst.bytes(index).fill(packets[sent + index]!);
        sent += port.txQueue(0).send(burst);
        burst.free();
      }
      port.rxQueue(0).receive(burst);
      for (let index = 0; index < burst.count; index++) back.push(burst.bytes(index).copyPacket());
      burst.free();
      await new Promise(setImmediate);
    }
    assert.equal(
      back,
      Array.from({ length: 100 }, (_, index) => pingReply([], index * 4)),
    );
    assert.is(spec.statistics().icmp, 100);
    // The last three may still be under way.
    const { dropOther } = spec.statistics();
    assert.ok(dropOther >= 297 && dropOther <= 300, `${dropOther} dropped`);
  } finally {
    await port.close();
  }
});

test.run();
