/** What a guest may do to the back-end in the control queue (abuse B59, B62, sub-cases of the control queue; rows 44 to 46; spec-E20). */

import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { ControlAck, ControlClass, MacCommand, MqCommand, RxCommand, VlanCommand } from '../../driver/spec/control.js';
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
const SET_PAIRS = (pairs: number): number[] => [ControlClass.MQ, MqCommand.VQ_PAIRS_SET, pairs & 0xff, pairs >>> 8];

function withGuest(body: (guest: HandGuest, ring: RawRing) => void): void {
  using thread = new HandThread();
  const { available } = thread.pool;
  using witness = new Witness(thread);
  {
    const features = GUEST_FEATURES.with(Feature.MQ, Feature.CTRL_VQ);
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

test('spec-E20: what is known is done, everything else is answered with ERR; one byte is used (row 46)', () => {
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
      [[ControlClass.RX, RxCommand.PROMISC, 1], ControlAck.ERR],
      [[ControlClass.MAC, MacCommand.TABLE_SET, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff], ControlAck.ERR],
      [[ControlClass.VLAN, VlanCommand.ADD, 0xff, 0xff], ControlAck.ERR],
      [[0xff, 0xff], ControlAck.ERR],
      [new Array(4096).fill(4), ControlAck.ERR],
      [new Array(4097).fill(4), ControlAck.ERR],
    ] as const) {
      write(guest, ring, bytes);
      expectAnswer(guest, ring, ack, 1, `${bytes.slice(0, 8)}`);
    }
  });
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

test('abuse-B59: tables and loops, by the same rules as on the other rings (row 44)', () => {
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

test('abuse-B62: a flood of commands takes a few a turn', () => {
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

test.run();
