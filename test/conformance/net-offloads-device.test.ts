/** What a net device must do with checksums and segments (virtio 1.2 §5.1.6.2.2 and §5.1.6.4.1; virtio 1.3 for USO). */

import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { createPort as createEcho } from '../../driver/backend/ports/echo.js';
import { createPort as createSwitch } from '../../driver/backend/ports/switch.js';
import { Feature, type FeatureSet } from '../../driver/spec/features.js';
import { GsoFlag, GsoType, NetHeaderFlag } from '../../driver/spec/net-header.js';
import { HandThread } from '../support/hand-guest.js';
import {
  type Arrival,
  ASKING,
  NEITHER,
  type NetHeader,
  OffloadGuest,
  RING_SIZE,
  TAKING,
} from '../support/offload-guest.js';
import { type PacketShape, packetOf, placesOf, transportChecksum } from '../support/offload-packets.js';

const test = suite('net device: checksums and segments');

const { NEEDS_CSUM, DATA_VALID, RSC_INFO } = NetHeaderFlag;
const TCP_FLAGS_AT = 13;
const CWR = 0x80;

const payloadOf = (bytes: number): Uint8Array => Uint8Array.from({ length: bytes }, (_, at) => (at * 7) & 0xff);
const checksumAt = (shape: PacketShape): number => placesOf(shape).transport + offsetOf(shape);
const offsetOf = ({ protocol }: PacketShape): number => (protocol === 'tcp' ? 16 : 6);
const u16 = (bytes: Uint8Array, at: number): number => (bytes[at]! << 8) | bytes[at + 1]!;

/** The packet as its sender leaves it: the sum of the pseudo header where the checksum belongs. */
function unfinished(shape: PacketShape): Uint8Array {
  const bytes = packetOf(shape);
  const sum = transportChecksum(bytes, shape, true);
  bytes.set([sum >>> 8, sum & 0xff], checksumAt(shape));
  return bytes;
}

const asks = (shape: PacketShape): Partial<NetHeader> => ({
  flags: NEEDS_CSUM,
  csum_start: placesOf(shape).transport,
  csum_offset: offsetOf(shape),
});

/** A guest alone with its echo. */
function withEcho(features: FeatureSet, body: (guest: OffloadGuest) => void): void {
  using thread = new HandThread();
  {
    using guest = new OffloadGuest(thread, features, (pool) => createEcho({ pool, queuePairs: 1, report }, {}));
    body(guest);
  }
  assert.is(thread.pool.available, thread.pool.size, 'every packet is freed');
}

/** Guests at a switch: the first sends. */
function withGuests(features: readonly FeatureSet[], body: (guests: readonly OffloadGuest[]) => void): void {
  using thread = new HandThread();
  const guests = features.map(
    (own) => new OffloadGuest(thread, own, (pool) => createSwitch({ pool, queuePairs: 1, report }, {})),
  );
  try {
    for (const guest of guests) guest.receive(1);
    body(guests);
  } finally {
    for (const guest of guests) guest[Symbol.dispose]();
  }
  assert.is(thread.pool.available, thread.pool.size, 'every packet is freed');
}

const report = (reason: string): void => assert.unreachable(reason);

/** The payloads of packets of one shape, in order; each packet must have right checksums and lengths. */
function joined(arrived: readonly Arrival[], shape: PacketShape): Uint8Array {
  const { transport, payload, network } = placesOf(shape);
  for (const { bytes, header } of arrived) {
    assert.is(header.flags & NEEDS_CSUM, 0);
    assert.is(u16(bytes, checksumAt(shape)), transportChecksum(bytes, shape), 'the checksum');
    if (shape.version === 4) assert.is(u16(bytes, network + 2), bytes.length - network, 'the length of IPv4');
    else assert.is(u16(bytes, network + 4), bytes.length - network - 40, 'the length of IPv6');
    if (shape.protocol === 'udp') assert.is(u16(bytes, transport + 4), bytes.length - transport, 'the length of UDP');
  }
  return Uint8Array.from(Buffer.concat(arrived.map(({ bytes }) => bytes.subarray(payload))));
}

const KINDS = [
  { version: 4, protocol: 'tcp', gso: GsoType.TCPV4, feature: Feature.GUEST_TSO4 },
  { version: 6, protocol: 'tcp', gso: GsoType.TCPV6, feature: Feature.GUEST_TSO6 },
  { version: 4, protocol: 'udp', gso: GsoType.UDP_L4, feature: Feature.GUEST_USO4 },
  { version: 6, protocol: 'udp', gso: GsoType.UDP_L4, feature: Feature.GUEST_USO6 },
] as const;

test('§5.1.6.2.2: flag bits that are not known are ignored', () =>
  withEcho(ASKING, (guest) => {
    const bytes = packetOf({ version: 4, protocol: 'tcp', payload: payloadOf(10) });
    guest.send(bytes, { flags: 0xf8 | DATA_VALID | RSC_INFO, csum_start: 0xffff, csum_offset: 0xffff });
    const [echoed, ...others] = guest.receive();
    assert.equal(others, []);
    assert.is(echoed!.header.flags, 0, 'what the driver must not say is not repeated');
    assert.equal(echoed!.bytes, bytes);
  }));

test('§5.1.6.2.2: csum_start and csum_offset are not used without NEEDS_CSUM', () =>
  withEcho(ASKING, (guest) => {
    const bytes = packetOf({ version: 4, protocol: 'udp', payload: payloadOf(33) });
    guest.send(bytes, { csum_start: 34, csum_offset: 6 });
    assert.equal(guest.receive()[0]!.bytes, bytes);
  }));

test('§5.1.6.2.2: hdr_len is not relied on', () => {
  const shape: PacketShape = { version: 4, protocol: 'tcp', payload: payloadOf(4000) };
  for (const hdr_len of [0, 1, 54, 0xffff]) {
    withGuests([ASKING, NEITHER], ([from, to]) => {
      from!.send(unfinished(shape), { ...asks(shape), gso_type: GsoType.TCPV4, gso_size: 1000, hdr_len });
      assert.equal(joined(to!.receive(), shape), shape.payload, `hdr_len ${hdr_len}`);
    });
  }
});

test('§5.1.6.4.1: without GUEST_CSUM flags are zero, and the packet has its checksum', () => {
  for (const version of [4, 6] as const) {
    for (const protocol of ['tcp', 'udp'] as const) {
      const shape: PacketShape = { version, protocol, payload: payloadOf(101) };
      withEcho(ASKING, (guest) => {
        guest.send(unfinished(shape), asks(shape));
        const [echoed] = guest.receive();
        assert.equal(
          { ...echoed!.header, num_buffers: 1 },
          { ...echoed!.header, flags: 0, gso_type: 0, num_buffers: 1 },
        );
        assert.equal(echoed!.bytes, packetOf(shape));
      });
    }
  }
});

test('§5.1.6.4.1: with GUEST_CSUM the checksum is left to the driver: NEEDS_CSUM, where it is, and the pseudo header’s sum', () => {
  const shape: PacketShape = { version: 6, protocol: 'tcp', payload: payloadOf(99), tags: 1 };
  withEcho(ASKING.union(TAKING), (guest) => {
    guest.send(unfinished(shape), asks(shape));
    const [echoed] = guest.receive();
    assert.is(echoed!.header.flags, NEEDS_CSUM);
    assert.is(echoed!.header.csum_start, placesOf(shape).transport);
    assert.is(echoed!.header.csum_offset, 16);
    assert.is(echoed!.header.num_buffers, 1);
    assert.equal(echoed!.bytes, unfinished(shape));
  });
});

for (const { version, protocol, gso, feature } of KINDS) {
  const shape: PacketShape = { version, protocol, payload: payloadOf(30_000), tcpOptions: protocol === 'tcp' ? 3 : 0 };
  const name = `${protocol.toUpperCase()} over IPv${version}`;
  const header = { ...asks(shape), gso_type: gso, gso_size: 1400 };

  test(`§5.1.6.4.1: ${name} of 30 KB reaches a driver that takes it whole: gso_type, gso_size, NEEDS_CSUM, hdr_len`, () =>
    withGuests([ASKING, TAKING], ([from, to]) => {
      from!.send(unfinished(shape), header);
      const [arrival, ...others] = to!.receive();
      assert.equal(others, []);
      const { gso_type, gso_size, flags, hdr_len, num_buffers } = arrival!.header;
      assert.equal({ gso_type, gso_size, flags }, { gso_type: gso, gso_size: 1400, flags: NEEDS_CSUM });
      assert.ok(hdr_len >= placesOf(shape).payload, 'SHOULD: not less than the length of the headers');
      assert.is(num_buffers, Math.ceil((arrival!.bytes.length + 12) / 2048));
      assert.equal(arrival!.bytes, unfinished(shape));
    }));

  test(`§5.1.6.4.1: ${name} of 30 KB reaches a driver without ${Object.keys(Feature).find((key) => Feature[key as keyof typeof Feature] === feature)} in segments`, () =>
    withGuests([ASKING, TAKING.without(feature)], ([from, to]) => {
      from!.send(unfinished(shape), header);
      const arrived = to!.receive();
      assert.is(arrived.length, Math.ceil(30_000 / 1400));
      for (const { header: own } of arrived) assert.is(own.gso_type, GsoType.NONE);
      assert.equal(joined(arrived, shape), shape.payload);
    }));
}

test('§5.1.6.4.1: ECN only with GUEST_ECN, and then with its bit in gso_type', () => {
  const shape: PacketShape = { version: 4, protocol: 'tcp', payload: payloadOf(4000), flags: CWR | 0x10 };
  const header = { ...asks(shape), gso_type: GsoType.TCPV4 | GsoFlag.ECN, gso_size: 1000 };
  withGuests([ASKING, TAKING], ([from, to]) => {
    from!.send(unfinished(shape), header);
    assert.equal(
      to!.receive().map(({ header: { gso_type } }) => gso_type),
      [GsoType.TCPV4 | GsoFlag.ECN],
    );
  });
  withGuests([ASKING, TAKING.without(Feature.GUEST_ECN)], ([from, to]) => {
    from!.send(unfinished(shape), header);
    const arrived = to!.receive();
    const flagsAt = placesOf(shape).transport + TCP_FLAGS_AT;
    assert.equal(
      arrived.map(({ bytes }) => bytes[flagsAt]! & CWR),
      [CWR, 0, 0, 0],
      'a reduced window is told once',
    );
    assert.equal(joined(arrived, shape), shape.payload);
  });
});

test('a flood leaves to each driver what that driver takes, and what was left to the host stays in order', () => {
  const shape: PacketShape = { version: 4, protocol: 'tcp', payload: payloadOf(20_000) };
  const small: PacketShape = { version: 4, protocol: 'udp', payload: payloadOf(50) };
  withGuests([ASKING, TAKING, NEITHER, TAKING.without(Feature.GUEST_TSO4)], ([from, ...others]) => {
    const [whole, cut, checksums] = others as [OffloadGuest, OffloadGuest, OffloadGuest];
    from!.send(unfinished(shape), { ...asks(shape), gso_type: GsoType.TCPV4, gso_size: 900 });
    from!.send(packetOf(small));
    from!.send(unfinished(small), asks(small));
    assert.equal(
      whole.receive().map(({ header: { flags, gso_type } }) => [flags, gso_type]),
      [
        [NEEDS_CSUM, GsoType.TCPV4],
        [0, 0],
        [NEEDS_CSUM, 0],
      ],
    );
    const segments = Math.ceil(20_000 / 900);
    const [ofOne, ofOther] = [cut.receive(), checksums.receive()] as const;
    for (const arrived of [ofOne, ofOther]) {
      assert.is(arrived.length, segments + 2);
      assert.equal(joined(arrived.slice(0, segments), shape), shape.payload);
      assert.equal(arrived[segments]!.bytes, packetOf(small));
    }
    assert.equal(ofOne[segments + 1]!.bytes, packetOf(small));
    assert.is(ofOther[segments + 1]!.header.flags, NEEDS_CSUM);
  });
});

test('nothing overtakes segments that wait for buffers, not even a packet that could go directly', () => {
  const shape: PacketShape = { version: 4, protocol: 'tcp', payload: payloadOf(5000) };
  withGuests([ASKING, NEITHER], ([from, to]) => {
    // From here on the switch knows where the receiver is.
    const answer = packetOf({ version: 4, protocol: 'udp', payload: payloadOf(20) });
    answer.copyWithin(6, 0, 6);
    to!.send(answer);
    to!.takeBuffers();
    to!.giveBuffers(10);
    from!.send(unfinished(shape), { ...asks(shape), gso_type: GsoType.TCPV4, gso_size: 100 });
    const arrived = to!.receive(1);
    assert.is(arrived.length, 10);
    to!.giveBuffers(RING_SIZE - 10);
    const last = packetOf({ ...shape, payload: payloadOf(7) });
    from!.send(last);
    arrived.push(...to!.receive());
    assert.is(arrived.length, 51);
    assert.equal(joined(arrived.slice(0, 50), shape), shape.payload);
    assert.equal(arrived[50]!.bytes, last);
  });
});

test('a legacy header of 10 bytes asks and tells, too', () => {
  const legacy = (features: FeatureSet): FeatureSet => features.without(Feature.VERSION_1, Feature.MRG_RXBUF);
  const shape: PacketShape = { version: 4, protocol: 'udp', payload: payloadOf(700) };
  withGuests([legacy(ASKING), legacy(TAKING), legacy(NEITHER)], ([from, takes, takesNot]) => {
    from!.send(unfinished(shape), asks(shape));
    assert.is(takes!.receive()[0]!.header.flags, NEEDS_CSUM);
    assert.equal(takesNot!.receive()[0]!.bytes, packetOf(shape));
  });
});

test.run();
