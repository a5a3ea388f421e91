/** The recorder of split rings names the rule that a trace breaks, and no other. */

import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { AVAIL_FLAGS, AVAIL_INDEX, USED_FLAGS, USED_INDEX } from '../../driver/ring/split-views.js';
import { Feature } from '../../driver/spec/features.js';
import { DescFlag } from '../../driver/spec/ring.js';
import { namesOver, published } from '../support/spec/named-traces.js';
import { packetOf, type RawStandOptions, SplitStand } from '../support/spec/raw-stand.js';

const test = suite('recorder of split rings');
const names = namesOver(test, SplitStand);
const { NEXT, WRITE, INDIRECT } = DescFlag;
const { EVENT_IDX, INDIRECT_DESC, IN_ORDER, MRG_RXBUF } = Feature;
const merged: RawStandOptions = { kind: 'receive', features: [MRG_RXBUF] };

names('D22', 'a part to be written before one to be read', {}, (s) => {
  s.ring.describe(0, s.buffer(0), 100, WRITE | NEXT, 1);
  s.ring.describe(1, s.buffer(1), 100, 0);
  s.ring.offer(0);
  s.driver();
});

names('D23', 'an index that goes back', {}, (s) => {
  published(s);
  s.ring.views.avail[AVAIL_INDEX] = 1;
  s.driver();
});

names('D23', 'a head beyond the ring', {}, (s) => {
  s.ring.offer(8);
  s.driver();
});

names('D23', 'a loop', {}, (s) => {
  s.ring.describe(0, s.buffer(0), 100, NEXT, 1);
  s.ring.describe(1, s.buffer(1), 100, NEXT, 0);
  s.ring.offer(0);
  s.driver();
});

names('D24', 'a table that was not accepted', {}, (s) => {
  s.write(s.buffer(0), packetOf(60));
  s.ring.describe(7, s.buffer(0), 72, 0);
  s.ring.describe(0, s.ring.desc + 112n, 16, INDIRECT);
  s.ring.offer(0);
  s.driver();
});

names('D24', 'a table and NEXT', { features: [INDIRECT_DESC] }, (s) => {
  s.ring.describe(0, s.buffer(0), 16, INDIRECT | NEXT, 1);
  s.ring.offer(0);
  s.driver();
});

names('D24', 'a table in a table', { features: [INDIRECT_DESC] }, (s) => {
  s.ring.describe(7, s.buffer(0), 16, INDIRECT);
  s.ring.describe(0, s.ring.desc + 112n, 16, INDIRECT);
  s.ring.offer(0);
  s.driver();
});

names('D25', 'descriptors that are not neighbours', { features: [IN_ORDER] }, (s) => {
  s.write(s.buffer(0), packetOf(60));
  s.ring.describe(0, s.buffer(0), 72, NEXT, 2);
  s.ring.describe(2, s.buffer(1), 72, 0);
  s.ring.offer(0);
  s.driver();
});

names('D27', 'no kick, and the device wants one', {}, (s) => {
  s.send(0);
  s.driver(0);
});

names('D27', 'no kick when the event is passed', { features: [EVENT_IDX] }, (s) => {
  published(s);
  s.ring.views.used[s.ring.views.availEvent] = 3;
  s.device();
  s.send(2);
  s.driver(0);
  assert.equal(s.violations.lines, [], 'not yet');
  s.send(3);
  s.driver(0);
});

names('D27', 'flags with EVENT_IDX', { features: [EVENT_IDX] }, (s) => {
  s.ring.views.avail[AVAIL_FLAGS] = 1;
  s.driver();
});

names('D31', 'a descriptor that the device has', {}, (s) => {
  published(s);
  s.ring.describe(0, s.buffer(0), 71, 0);
  s.driver();
});

names('D31', 'bytes of a packet that the device has', {}, (s) => {
  published(s);
  s.write(s.buffer(1) + 40n, [9]);
  s.driver();
});

names('D31', 'a descriptor published twice', {}, (s) => {
  published(s);
  s.ring.offer(1);
  s.driver();
});

names('D31', 'the used ring', {}, (s) => {
  published(s);
  s.ring.views.used[USED_INDEX] = 1;
  s.driver();
});

names('E7', 'a descriptor', {}, (s) => {
  published(s);
  s.ring.describe(0, s.buffer(0), 71, 0);
  s.device();
});

names('E7', 'bytes of a packet that is sent', {}, (s) => {
  published(s);
  s.write(s.buffer(1) + 40n, [9]);
  s.device();
});

names('E8', 'an index too far', {}, (s) => {
  published(s);
  s.ring.views.used[USED_INDEX] = 3;
  s.device();
});

names('E8', 'a chain used twice', {}, (s) => {
  published(s);
  s.use(0);
  s.use(0);
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

names('E9', 'flags with EVENT_IDX', { features: [EVENT_IDX] }, (s) => {
  s.ring.views.used[USED_FLAGS] = 1;
  s.device();
});

names('E10', 'out of order with IN_ORDER', { features: [IN_ORDER] }, (s) => {
  published(s);
  s.use(1);
  s.device();
});

test('D27 is named: a used ring that is not cleared', () => {
  const stand = new SplitStand({}, (ring) => {
    ring.views.used[USED_FLAGS] = 1;
  });
  assert.equal(stand.violations.rules, ['D27']);
});

test('honest ends are not objected to, over many rounds, in any order', () => {
  const stand = new SplitStand({ size: 4 });
  const back = new SplitStand({ ...merged, size: 4 });
  for (let round = 0; round < 50; round++) {
    for (const id of [0, 1, 2, 3]) stand.send(id, packetOf(14 + round, 0));
    for (const id of [3, 1]) back.post(id);
    stand.driver();
    back.driver();
    for (const id of [2, 0, 3, 1]) stand.use(id);
    back.deliver(1, packetOf(2036, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2));
    back.deliver(3, new Uint8Array(1 + round));
    stand.device();
    back.device();
  }
  for (const { violations, rules } of [stand, back]) {
    assert.equal(violations.lines, []);
    assert.ok(rules.published > 0);
  }
});

test.run();
