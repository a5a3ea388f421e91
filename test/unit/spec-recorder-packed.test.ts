/** The recorder of packed rings names the rule that a trace breaks, and no other. */

import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { Feature } from '../../driver/spec/features.js';
import { DescFlag, RingEvent } from '../../driver/spec/ring.js';
import { namesOver, published } from '../support/spec/named-traces.js';
import { PackedStand, packetOf, type RawStandOptions } from '../support/spec/raw-stand.js';

const test = suite('recorder of packed rings');
const names = namesOver(test, PackedStand);
const { NEXT, WRITE, INDIRECT, AVAIL, USED } = DescFlag;
const { EVENT_IDX, INDIRECT_DESC, MRG_RXBUF, IN_ORDER } = Feature;
const merged: RawStandOptions = { kind: 'receive', features: [MRG_RXBUF] };
const WRAP = 0x8000;

names('D22', 'a part to be written before one to be read', {}, (s) => {
  s.write(s.buffer(1), packetOf(60));
  s.ring.offer(0, { address: s.buffer(0), length: 100, flags: WRITE }, { address: s.buffer(1), length: 72 });
  s.driver();
});

names('D23', 'a chain of more than there are', {}, (s) => {
  for (let at = 0; at < 8; at++) {
    s.ring.describe(at, s.buffer(at), 72, 0);
    s.ring.writeFlags(at, AVAIL | NEXT);
  }
  s.driver();
});

names('D24', 'a table that was not accepted', {}, (s) => {
  s.write(s.buffer(1), packetOf(60));
  const view = new DataView(s.memory);
  const at = s.bytes.length - 8192;
  view.setBigUint64(at, s.buffer(1), true);
  view.setUint32(at + 8, 72, true);
  s.write(s.buffer(0), s.bytes.slice(at, at + 16));
  s.ring.offer(0, { address: s.buffer(0), length: 16, flags: INDIRECT });
  s.driver();
});

names('D24', 'NEXT in a table', { features: [INDIRECT_DESC] }, (s) => {
  s.write(s.buffer(1), packetOf(60));
  const table = new DataView(new ArrayBuffer(16));
  table.setBigUint64(0, s.buffer(1), true);
  table.setUint32(8, 72, true);
  table.setUint16(14, NEXT, true);
  s.write(s.buffer(0), new Uint8Array(table.buffer));
  s.ring.offer(0, { address: s.buffer(0), length: 16, flags: INDIRECT });
  s.driver();
});

names('D27', 'no kick, and the device wants one', {}, (s) => {
  s.send(0);
  s.driver(0);
});

names('D27', 'no kick when the event is passed', { features: [EVENT_IDX] }, (s) => {
  published(s);
  s.ring.views.deviceEvent[0] = (WRAP | 3 | (RingEvent.DESC << 16)) >>> 0;
  s.device();
  s.send(2);
  s.driver(0);
  assert.equal(s.violations.lines, [], 'not yet');
  s.send(3);
  s.driver(0);
});

names('D27', 'a wish for one descriptor without EVENT_IDX', {}, (s) => {
  s.ring.views.driverEvent[0] = RingEvent.DESC << 16;
  s.driver();
});

names('D30', 'a descriptor that the device has', {}, (s) => {
  published(s);
  s.ring.describe(0, s.buffer(0), 71, 0);
  s.driver();
});

names('D30', 'a head published before the rest of its chain', {}, (s) => {
  s.ring.describe(0, s.buffer(0), 72, 0);
  s.ring.writeFlags(0, AVAIL | NEXT);
  s.driver();
});

names('D30', 'an id that the device has', {}, (s) => {
  published(s);
  s.send(1);
  s.driver();
});

names('D31', 'bytes of a packet that the device has', {}, (s) => {
  published(s);
  s.write(s.buffer(1) + 40n, [9]);
  s.driver();
});

names('D31', "the device's wish for kicks", {}, (s) => {
  s.ring.views.deviceEvent[0] = 1 << 16;
  s.driver();
});

names('D35', 'small buffers without MRG_RXBUF', { kind: 'receive' }, (s) => {
  s.post(0, 1525);
  s.driver();
});

names('E7', "the driver's wish for calls", {}, (s) => {
  s.ring.views.driverEvent[0] = 1 << 16;
  s.device();
});

names('E8', 'more than was said', merged, (s) => {
  s.post(0);
  s.driver();
  s.write(s.buffer(0), packetOf(60, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1).fill(7, 12));
  s.use(0, 71);
  s.device();
});

names('E9', 'no call, and the driver wants one', {}, (s) => {
  published(s);
  s.use(0);
  s.device(0);
});

names('E9', 'a wish that there is not', {}, (s) => {
  s.ring.views.deviceEvent[0] = 3 << 16;
  s.device();
});

names('E10', 'out of order with IN_ORDER', { features: [IN_ORDER] }, (s) => {
  published(s);
  s.use(1);
  s.use(0);
  s.device();
});

names('E11', 'a descriptor that was not used', {}, (s) => {
  published(s);
  s.ring.describe(1, s.buffer(1), 71, 1);
  s.device();
});

names('E11', 'not in the order of the ring', {}, (s) => {
  published(s);
  s.ring.writeFlags(1, AVAIL | USED);
  s.device();
});

names('E12', 'half a packet', merged, (s) => {
  s.post(0);
  s.post(1);
  s.driver();
  s.deliver(0, packetOf(2036, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2));
  s.device();
});

test('E8 and E11 are named: an id that is not published', () => {
  const stand = new PackedStand();
  published(stand);
  stand.use(5);
  stand.device();
  assert.equal(stand.violations.rules, ['E8', 'E11']);
});

test('honest ends are not objected to, over many rounds, in any order and over the wrap', () => {
  const stand = new PackedStand({ size: 5 });
  const back = new PackedStand({ ...merged, size: 5 });
  for (let round = 0; round < 50; round++) {
    for (const id of [0, 1, 2]) stand.send(id, packetOf(14 + round, 0));
    for (const id of [3, 1]) back.post(id);
    stand.driver();
    back.driver();
    for (const id of [2, 0, 1]) stand.use(id);
    back.deliver(1, packetOf(2036, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2));
    back.deliver(3, new Uint8Array(1 + round));
    stand.device();
    back.device();
    for (const each of [stand, back]) assert.ok(each.ring.takeUsed().length >= 2);
  }
  for (const { violations, rules } of [stand, back]) {
    assert.equal(violations.lines, []);
    assert.ok(rules.published >= 100);
  }
});

test.run();
