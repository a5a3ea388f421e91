/** What a guest may do to the back-end in the control queue (abuse B59, B62, sub-cases of the control queue; rows 44 to 46; spec-E20). */

import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import {
  AnnounceCommand,
  ControlAck,
  ControlClass,
  MacCommand,
  MqCommand,
  NotfCoalCommand,
  RxCommand,
  StatsCommand,
  VlanCommand,
} from '../../driver/spec/control.js';
import { Feature } from '../../driver/spec/features.js';
import { DescFlag } from '../../driver/spec/ring.js';
import {
  BUFFERS,
  GUEST_FEATURES,
  HandGuest,
  HandThread,
  type RawRing,
  REGION_A,
  REGIONS_END,
  Witness,
} from '../support/hand-guest.js';

const test = suite('back-end against a hostile guest: control queue');
const { NEXT, WRITE, INDIRECT } = DescFlag;
const PAIRS = 3;
const CONTROL = 2 * PAIRS;
const COMMAND = BUFFERS;
const ACK = BUFFERS + 8192n;
const UNTOUCHED = 0xee;
const COMMAND_FEATURES = [
  Feature.CTRL_VQ,
  Feature.MQ,
  Feature.CTRL_RX,
  Feature.CTRL_RX_EXTRA,
  Feature.CTRL_VLAN,
  Feature.CTRL_MAC_ADDR,
  Feature.GUEST_ANNOUNCE,
];
const SET_PAIRS = (pairs: number): number[] => [ControlClass.MQ, MqCommand.VQ_PAIRS_SET, pairs & 0xff, pairs >>> 8];

function withGuest(body: (guest: HandGuest, ring: RawRing) => void): void {
  using thread = new HandThread();
  const { available } = thread.pool;
  using witness = new Witness(thread);
  {
    const features = GUEST_FEATURES.with(...COMMAND_FEATURES);
    using guest = new HandGuest(thread, { features, queuePairs: PAIRS });
    const ring = guest.start(CONTROL, 64);
    body(guest, ring);
    guest.checkCanaries();
    witness.forward();
  }
  witness.guest.device.reset();
  assert.is(thread.pool.available, available);
}

/** Offers chain 0 and expects its answer: an ack where there is a place for one, and the length in the used ring. */
function expectAnswer(guest: HandGuest, ring: RawRing, ack: number, length: number, what = ''): void {
  ring.offer(0);
  guest.poll(1);
  assert.equal(ring.takeUsed(), [{ id: 0, length }], what);
  assert.is(guest.read(ACK, 1)[0], ack, what);
  assert.is(guest.read(ACK + 1n, 1)[0], UNTOUCHED, 'one byte is written, and no more');
}

/** Writes a command in one readable descriptor and an ack byte behind it. */
function write(guest: HandGuest, ring: RawRing, bytes: ArrayLike<number>): void {
  guest.write(COMMAND, bytes);
  guest.write(ACK, new Array(16).fill(UNTOUCHED));
  ring.describe(0, COMMAND, bytes.length, NEXT, 1);
  ring.describe(1, ACK, 1, WRITE);
}

test('rows 46 and 60, spec-E20: what is known is done, everything else is answered with ERR; one byte is used', () => {
  withGuest((guest, ring) => {
    for (const [bytes, ack] of [
      [SET_PAIRS(1), ControlAck.OK],
      [SET_PAIRS(PAIRS), ControlAck.OK],
      [SET_PAIRS(0), ControlAck.ERR],
      [SET_PAIRS(PAIRS + 1), ControlAck.ERR],
      [SET_PAIRS(0xffff), ControlAck.ERR],
      [SET_PAIRS(2).slice(0, 3), ControlAck.ERR],
      [[...SET_PAIRS(2), 0], ControlAck.ERR],
      [[ControlClass.MQ], ControlAck.ERR],
      [[ControlClass.MQ, 0x77, 1, 0], ControlAck.ERR],
      [[ControlClass.MQ, MqCommand.RSS_CONFIG, ...new Array(60).fill(0xff)], ControlAck.ERR],
      [[ControlClass.RX, RxCommand.PROMISC, 1], ControlAck.OK],
      [[ControlClass.RX, RxCommand.PROMISC, 0], ControlAck.OK],
      [[ControlClass.RX, RxCommand.PROMISC], ControlAck.ERR],
      [[ControlClass.RX, RxCommand.PROMISC, 2], ControlAck.ERR],
      [[ControlClass.RX, RxCommand.NOBCAST, 1, 0], ControlAck.ERR],
      [[ControlClass.RX, RxCommand.NOBCAST + 1, 1], ControlAck.ERR],
      [[ControlClass.VLAN, VlanCommand.ADD, 0xff, 0x0f], ControlAck.OK],
      [[ControlClass.VLAN, VlanCommand.ADD, 0x00, 0x10], ControlAck.ERR],
      [[ControlClass.VLAN, VlanCommand.ADD, 0xff, 0xff], ControlAck.ERR],
      [[ControlClass.VLAN, VlanCommand.DEL, 0xff], ControlAck.ERR],
      [[ControlClass.VLAN, 2, 1, 0], ControlAck.ERR],
      [[ControlClass.MAC, MacCommand.ADDR_SET, 2, 0, 0, 0, 0, 9], ControlAck.OK],
      [[ControlClass.MAC, MacCommand.ADDR_SET, 2, 0, 0, 0, 0], ControlAck.ERR],
      [[ControlClass.MAC, MacCommand.ADDR_SET, 2, 0, 0, 0, 0, 9, 0], ControlAck.ERR],
      [[ControlClass.MAC, MacCommand.ADDR_SET, 3, 0, 0, 0, 0, 9], ControlAck.ERR],
      [[ControlClass.MAC, 2, 2, 0, 0, 0, 0, 9], ControlAck.ERR],
      [[ControlClass.ANNOUNCE, AnnounceCommand.ACK], ControlAck.OK],
      [[ControlClass.ANNOUNCE, AnnounceCommand.ACK, 0], ControlAck.ERR],
      [[ControlClass.ANNOUNCE, 1], ControlAck.ERR],
      [[ControlClass.GUEST_OFFLOADS, 0, 0, 0, 0, 0, 0, 0, 0, 0], ControlAck.ERR],
      [[0xff, 0xff], ControlAck.ERR],
      [new Array(4096).fill(4), ControlAck.ERR],
      [new Array(4097).fill(4), ControlAck.ERR],
    ] as const) {
      write(guest, ring, bytes);
      expectAnswer(guest, ring, ack, 1, `${bytes.slice(0, 8)}`);
    }
  });
});

/** TABLE_SET of two tables that say they have so many addresses, with `addresses` of them. */
function setTables(unicast: number, multicast: number, addresses = unicast + multicast): number[] {
  const bytes: number[] = [ControlClass.MAC, MacCommand.TABLE_SET];
  const count = (value: number): number[] => [0, 8, 16, 24].map((shift) => (value >>> shift) & 0xff);
  const first = Math.min(unicast, addresses);
  bytes.push(...count(unicast), ...new Array(6 * first).fill(0x02));
  bytes.push(...count(multicast), ...new Array(6 * (addresses - first)).fill(0x03));
  return bytes;
}

test('tables of addresses whose numbers are not those of the addresses that follow', () => {
  withGuest((guest, ring) => {
    for (const [unicast, multicast, addresses, ack] of [
      [0, 0, 0, ControlAck.OK],
      [3, 2, 5, ControlAck.OK],
      [3, 2, 4, ControlAck.ERR],
      [3, 2, 6, ControlAck.ERR],
      [5, 0, 4, ControlAck.ERR],
      [0xffff_ffff, 0, 4, ControlAck.ERR],
      // Six times as many wrap to four bytes.
      [0x2aaa_aaab, 0, 1, ControlAck.ERR],
      [0, 0xffff_ffff, 4, ControlAck.ERR],
      [0, 0x8000_0000, 0, ControlAck.ERR],
      // More than are kept, and more than are read.
      [256, 256, 512, ControlAck.OK],
      [1000, 1000, 2000, ControlAck.OK],
      [1000, 1000, 1999, ControlAck.ERR],
    ] as const) {
      const bytes = setTables(unicast, multicast, addresses);
      guest.write(ACK + 16_384n, bytes);
      guest.write(ACK, new Array(16).fill(UNTOUCHED));
      ring.describe(0, ACK + 16_384n, bytes.length, NEXT, 1);
      ring.describe(1, ACK, 1, WRITE);
      expectAnswer(guest, ring, ack, 1, `${unicast} and ${multicast} of ${addresses}`);
    }
    for (const length of [2, 5, 6, 9]) {
      write(guest, ring, setTables(0, 0).slice(0, length));
      expectAnswer(guest, ring, ControlAck.ERR, 1, `${length} bytes`);
    }
  });
});

test('a table with bytes that are not in guest memory changes nothing', () => {
  withGuest((guest, ring) => {
    for (const nowhere of [REGIONS_END - 2n, REGIONS_END]) {
      write(guest, ring, setTables(4, 0));
      ring.describe(0, COMMAND, 6, NEXT, 1);
      ring.describe(1, nowhere, 24, NEXT, 2);
      ring.describe(2, COMMAND + 30n, 4, NEXT, 3);
      ring.describe(3, ACK, 1, WRITE);
      expectAnswer(guest, ring, ControlAck.ERR, 1, `${nowhere}`);
    }
  });
});

test('commands whose feature was not accepted', () => {
  using thread = new HandThread();
  for (const [feature, bytes] of [
    [Feature.CTRL_RX, [ControlClass.RX, RxCommand.ALLMULTI, 1]],
    [Feature.CTRL_RX_EXTRA, [ControlClass.RX, RxCommand.ALLUNI, 1]],
    [Feature.CTRL_RX, setTables(1, 1)],
    [Feature.CTRL_MAC_ADDR, [ControlClass.MAC, MacCommand.ADDR_SET, 2, 0, 0, 0, 0, 9]],
    [Feature.CTRL_VLAN, [ControlClass.VLAN, VlanCommand.ADD, 1, 0]],
    [Feature.GUEST_ANNOUNCE, [ControlClass.ANNOUNCE, AnnounceCommand.ACK]],
    [Feature.MQ, SET_PAIRS(1)],
  ] as const) {
    for (const isAccepted of [true, false]) {
      const features = GUEST_FEATURES.with(...COMMAND_FEATURES);
      using guest = new HandGuest(thread, {
        features: isAccepted ? features : features.without(feature),
        queuePairs: PAIRS,
      });
      const ring = guest.start(CONTROL, 64);
      write(guest, ring, bytes);
      expectAnswer(guest, ring, isAccepted ? ControlAck.OK : ControlAck.ERR, 1, `${bytes} ${isAccepted}`);
    }
  }
});

test('a command in pieces of any size, and the ack anywhere behind it', () => {
  withGuest((guest, ring) => {
    for (const pieces of [
      [1, 1, 1, 1],
      [1, 3],
      [3, 1],
      [0, 4, 0],
      [2, 0, 2],
    ]) {
      write(guest, ring, SET_PAIRS(2));
      let at = COMMAND;
      for (const [id, length] of pieces.entries()) {
        ring.describe(id, at, length, NEXT, id + 1);
        at += BigInt(length);
      }
      // A writable descriptor of no bytes has no room for the ack: the next one has.
      ring.describe(pieces.length, ACK, 0, WRITE | NEXT, pieces.length + 1);
      ring.describe(pieces.length + 1, ACK, 1, WRITE);
      expectAnswer(guest, ring, ControlAck.OK, 1, `${pieces}`);
    }
  });
});

test('without a place for the ack the command is returned with nothing written, and is not done', () => {
  withGuest((guest, ring) => {
    // The second pair is on when it gets a packet.
    const second = guest.start(2, 16);
    second.describe(0, BUFFERS + 16_384n, 2048, WRITE);
    second.offer(0);
    guest.port.queued.push(new Uint8Array(60));
    write(guest, ring, SET_PAIRS(2));
    for (const flags of [
      [0, 0],
      [0, WRITE],
    ] as const) {
      ring.describe(0, COMMAND, 4, NEXT, 1);
      ring.describe(1, ACK, flags[1] === WRITE ? 0 : 1, flags[1]);
      expectAnswer(guest, ring, UNTOUCHED, 0);
    }
    ring.describe(0, COMMAND, 4, 0);
    expectAnswer(guest, ring, UNTOUCHED, 0);
    assert.is(second.takeUsed().length, 0);
    write(guest, ring, SET_PAIRS(2));
    expectAnswer(guest, ring, ControlAck.OK, 1);
    guest.poll();
    assert.is(second.takeUsed().length, 1);
  });
});

test('an ack byte before the command is an ack byte; a chain of nothing but ack bytes is no command', () => {
  withGuest((guest, ring) => {
    write(guest, ring, SET_PAIRS(2));
    ring.describe(0, ACK, 1, WRITE | NEXT, 1);
    ring.describe(1, COMMAND, 4, 0);
    expectAnswer(guest, ring, ControlAck.OK, 1);
    ring.describe(0, ACK, 1, WRITE);
    expectAnswer(guest, ring, ControlAck.ERR, 1);
  });
});

test("abuse-B60: a command, or an ack, that is not in the guest's memory", () => {
  withGuest((guest, ring) => {
    for (const nowhere of [0n, REGION_A - 2n, REGIONS_END - 2n, 0xffff_ffff_ffff_fffen]) {
      write(guest, ring, SET_PAIRS(2));
      ring.describe(0, nowhere, 4, NEXT, 1);
      expectAnswer(guest, ring, ControlAck.ERR, 1);
      write(guest, ring, SET_PAIRS(2));
      ring.describe(1, nowhere === REGIONS_END - 2n ? REGIONS_END : nowhere, 1, WRITE);
      expectAnswer(guest, ring, UNTOUCHED, 0);
    }
  });
});

test('lengths whose sum is beyond all bounds', () => {
  withGuest((guest, ring) => {
    for (const lengths of [
      [0xffff_ffff, 4],
      [4, 0xffff_ffff],
      [0x8000_0000, 0x8000_0000],
      [4096, 1],
    ] as const) {
      write(guest, ring, SET_PAIRS(2));
      ring.describe(0, COMMAND, lengths[0], NEXT, 1);
      ring.describe(1, COMMAND, lengths[1], NEXT, 2);
      ring.describe(2, ACK, 1, WRITE);
      expectAnswer(guest, ring, ControlAck.ERR, 1, `${lengths}`);
    }
  });
});

test('abuse-B59, row 44: tables and loops, by the same rules as on the other rings', () => {
  withGuest((guest, ring) => {
    write(guest, ring, SET_PAIRS(2));
    const view = new DataView(new ArrayBuffer(32));
    for (const [index, [address, length, flags]] of (
      [
        [COMMAND, 4, NEXT],
        [ACK, 1, WRITE],
      ] as const
    ).entries()) {
      view.setBigUint64(16 * index, address, true);
      view.setUint32(16 * index + 8, length, true);
      view.setUint16(16 * index + 12, flags, true);
      view.setUint16(16 * index + 14, 1, true);
    }
    guest.write(ACK + 4096n, new Uint8Array(view.buffer));
    ring.describe(0, ACK + 4096n, 32, INDIRECT);
    expectAnswer(guest, ring, ControlAck.OK, 1);
  });
  for (const spoil of [
    (ring: RawRing) => ring.offer(64),
    (ring: RawRing) => {
      ring.describe(0, COMMAND, 1, NEXT, 0);
      ring.offer(0);
    },
    (ring: RawRing) => {
      ring.describe(0, COMMAND, 24, INDIRECT);
      ring.offer(0);
    },
  ]) {
    withGuest((guest, ring) => {
      spoil(ring);
      guest.poll(1000);
      assert.equal(
        guest.events.map((event) => (event.type === 'ring-broken' ? event.ring : event.type)),
        [CONTROL],
      );
    });
  }
});

test('abuse-B62, row 47: a flood of commands takes a few a turn', () => {
  withGuest((guest, ring) => {
    write(guest, ring, SET_PAIRS(2));
    ring.offer(...new Array(64).fill(0));
    guest.poll(1);
    const first = ring.takeUsed().length;
    assert.ok(first > 0 && first <= 8, `${first} in a turn`);
    guest.poll(64);
    assert.is(ring.takeUsed().length, 64 - first);
  });
});

const RSS_FEATURES = [Feature.RSS, Feature.HASH_REPORT, Feature.NOTF_COAL, Feature.VQ_NOTF_COAL, Feature.DEVICE_STATS];
/** RSS_CONFIG with a table of two queues and a key of three bytes. */
const SET_RSS = [4, MqCommand.RSS_CONFIG, 1, 0, 0, 0, 1, 0, 0, 0, 0, 0, 1, 0, PAIRS, 0, 3, 9, 8, 7];
const SET_HASH = [4, MqCommand.HASH_CONFIG, 1, 0, 0, 0, ...new Array(8).fill(0), 3, 9, 8, 7];
const GET_COALESCING = [ControlClass.NOTF_COAL, NotfCoalCommand.VQ_GET, 1, 0, 0, 0];
const GET_STATS = [ControlClass.STATS, StatsCommand.GET, 0, 0, ...new Array(6).fill(0), 1, 0, 0, 0, 0, 0, 0, 0];

function withSteeredGuest(body: (guest: HandGuest, ring: RawRing) => void): void {
  using thread = new HandThread();
  const { available } = thread.pool;
  using witness = new Witness(thread);
  {
    const features = GUEST_FEATURES.with(...COMMAND_FEATURES, ...RSS_FEATURES);
    using guest = new HandGuest(thread, { features, queuePairs: PAIRS });
    body(guest, guest.start(CONTROL, 64));
    guest.checkCanaries();
    witness.forward();
  }
  witness.guest.device.reset();
  assert.is(thread.pool.available, available);
}

test('abuse-B59, row 60: configurations of RSS and hash in pieces of any size, and with a piece that is nowhere', () => {
  withSteeredGuest((guest, ring) => {
    for (const bytes of [SET_RSS, SET_HASH]) {
      for (const piece of [1, 2, 3, 5, 7, 11]) {
        for (const nowhere of [-1, 0, 1, Math.ceil(bytes.length / piece) - 1]) {
          write(guest, ring, bytes);
          const pieces = Math.ceil(bytes.length / piece);
          for (let id = 0; id < pieces; id++) {
            const at = id === nowhere ? REGIONS_END : COMMAND + BigInt(id * piece);
            ring.describe(id, at, Math.min(piece, bytes.length - id * piece), NEXT, id + 1);
          }
          ring.describe(pieces, ACK, 1, WRITE);
          expectAnswer(guest, ring, nowhere < 0 ? ControlAck.OK : ControlAck.ERR, 1, `${piece}, ${nowhere}`);
        }
      }
    }
  });
});

test('abuse-B60: results that have no place: too little room, or none of it in guest memory', () => {
  withSteeredGuest((guest, ring) => {
    for (const [bytes, result] of [
      [GET_COALESCING, 8],
      [GET_STATS, 56],
    ] as const) {
      for (const room of [0, 1, result - 1]) {
        write(guest, ring, bytes);
        ring.describe(1, ACK, 1, WRITE | NEXT, 2);
        ring.describe(2, ACK + 4096n, room, WRITE);
        expectAnswer(guest, ring, ControlAck.ERR, 1, `room for ${room}`);
      }
      for (const nowhere of [0n, REGIONS_END, REGIONS_END - 4n, 0xffff_ffff_ffff_fffcn]) {
        write(guest, ring, bytes);
        ring.describe(1, ACK, 1, WRITE | NEXT, 2);
        ring.describe(2, nowhere, result, WRITE);
        expectAnswer(guest, ring, ControlAck.ERR, 1, `${nowhere}`);
      }
      // More room than there is memory: no more is written than there is to say.
      write(guest, ring, bytes);
      ring.describe(1, ACK, 1, WRITE | NEXT, 2);
      ring.describe(2, ACK + 4096n, 0xffff_ffff, WRITE);
      expectAnswer(guest, ring, ControlAck.OK, 1 + result);
      // In pieces of a byte, with commands between them.
      write(guest, ring, bytes);
      ring.describe(1, ACK, 1, WRITE | NEXT, 2);
      for (let at = 0; at < result; at++) {
        const isLast = at === result - 1;
        ring.describe(2 + at, ACK + 4096n + BigInt(2 * at), 1, WRITE | (isLast ? 0 : NEXT), 3 + at);
      }
      expectAnswer(guest, ring, ControlAck.OK, 1 + result);
    }
  });
});

test('spec-E20: commands at random are answered, each with one ack', () => {
  withSteeredGuest((guest, ring) => {
    let seed = 5;
    const random = (below: number): number => {
      seed = (Math.imul(seed, 1_103_515_245) + 12_345) >>> 0;
      return (seed >>> 8) % below;
    };
    for (let round = 0; round < 4000; round++) {
      const base = [SET_RSS, SET_HASH, GET_COALESCING, GET_STATS, SET_PAIRS(2)][random(5)]!;
      const bytes = [...base.slice(0, 1 + random(base.length)), ...new Array(random(3)).fill(random(256))];
      for (let change = random(4); change > 0; change--) bytes[random(bytes.length)] = random(256);
      write(guest, ring, bytes);
      ring.offer(0);
      guest.poll(1);
      assert.equal(ring.takeUsed(), [{ id: 0, length: 1 }], `${bytes}`);
      assert.ok(guest.read(ACK, 1)[0]! <= ControlAck.ERR);
    }
    assert.equal(guest.events, []);
  });
});

test('row 45: the control queue goes round its ring, and round the 65536 values of its index', () => {
  using thread = new HandThread();
  using guest = new HandGuest(thread, { features: GUEST_FEATURES.with(...COMMAND_FEATURES), queuePairs: PAIRS });
  const ring = guest.start(CONTROL, 4, 65_530);
  for (let number = 0; number < 20; number++) {
    write(guest, ring, SET_PAIRS(1 + (number % PAIRS)));
    expectAnswer(guest, ring, ControlAck.OK, 1, `command ${number}`);
  }
  assert.is(guest.device.stopRing(CONTROL), 14);
});

test.run();
