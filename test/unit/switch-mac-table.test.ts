/** The switch's MAC table against a model: learning, ageing, moves, bounds. */

import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { Learned, MacTable, NO_MEMBER } from '../../driver/backend/switch/mac-table.js';
import { ErrorCode, VirtioError } from '../../driver/errors.js';

const test = suite('switch: MAC table');

/** Numbers that look random and are the same in every run. */
function numbers(seed: number): (below: number) => number {
  let state = seed;
  return (below) => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
    return Math.floor((state / 2 ** 32) * below);
  };
}

/** Key words of station `number` in a VLAN; low words of both signs. */
const low = (number: number): number => Math.imul(number, 0x9e37_79b1);
const high = (number: number, vlan = 0): number => (number & 0xffff) | (vlan << 16);

interface Entry {
  member: number;
  seen: number;
}

test('ten thousand random steps find what a map finds', () => {
  const random = numbers(1);
  const ageing = 50;
  const LIMIT = 80;
  const table = new MacTable({ capacity: 256, memberCapacity: LIMIT, ageingSeconds: ageing });
  const model = new Map<string, Entry>();
  const countOf = (member: number) => [...model.values()].filter((entry) => entry.member === member).length;
  let now = 0;
  const outcomes = [0, 0, 0, 0];
  let refusedMoves = 0;
  for (let step = 0; step < 10_000; step++) {
    const station = random(400);
    const vlan = random(2);
    const key = `${station}/${vlan}`;
    const kind = random(100);
    if (kind < 60) {
      // Most are behind two members: their limit is met.
      const member = random(6) % 4;
      const known = model.get(key);
      const learned = table.learn(low(station), high(station, vlan), member, now);
      outcomes[learned]! += 1;
      const isFull = countOf(member) >= LIMIT || model.size >= 256;
      if (known?.member === member) {
        assert.is(learned, Learned.KNOWN);
        known.seen = now;
      } else if (known !== undefined) {
        const isAlive = now - known.seen < ageing;
        const mayMove = countOf(member) < LIMIT;
        assert.is(learned, !mayMove ? Learned.FULL : isAlive ? Learned.MOVED : Learned.ADDED, `step ${step}`);
        if (!mayMove) refusedMoves += 1;
        if (mayMove) model.set(key, { member, seen: now });
        else model.delete(key);
      } else {
        assert.is(learned, isFull ? Learned.FULL : Learned.ADDED, `step ${step}`);
        if (!isFull) model.set(key, { member, seen: now });
      }
    } else if (kind < 90) {
      const entry = model.get(key);
      const expected = entry !== undefined && now - entry.seen < ageing ? entry.member : NO_MEMBER;
      assert.is(table.lookup(low(station), high(station, vlan), now), expected, `step ${step}`);
    } else if (kind < 96) {
      now += 1;
    } else if (kind < 99) {
      // The whole table: a model has no slots.
      table.sweep(512, now);
      for (const [name, entry] of model) if (now - entry.seen >= ageing) model.delete(name);
    } else if (random(5) === 0) {
      const member = random(4);
      table.forget(member);
      for (const [name, entry] of model) if (entry.member === member) model.delete(name);
    }
    assert.is(table.size, model.size, `step ${step}`);
  }
  for (const member of [0, 1, 2, 3]) assert.is(table.sizeOf(member), countOf(member));
  assert.ok(
    outcomes.every((count) => count > 20),
    `every outcome was met: ${outcomes}`,
  );
  assert.ok(refusedMoves > 20, `moves to a member with all its entries were met: ${refusedMoves}`);
});

test('every one of 8192 stations is found when the table is full, in the default sizes', () => {
  const table = new MacTable();
  for (let station = 0; station < 8192; station++) {
    assert.is(table.learn(low(station), high(station), station % 4, 0), Learned.ADDED, `station ${station}`);
  }
  assert.is(table.learn(low(9000), high(9000), 0, 0), Learned.FULL);
  assert.is(table.learn(low(9000), high(9000), 4, 0), Learned.FULL, 'the table is full for a new member, too');
  for (let station = 0; station < 8192; station++) assert.is(table.lookup(low(station), high(station), 1), station % 4);
  assert.is(table.lookup(low(9000), high(9000), 1), NO_MEMBER);
});

test('a member that makes up addresses fills its share, and no other station is forgotten for it', () => {
  const table = new MacTable();
  for (let station = 0; station < 100; station++) table.learn(low(station), high(station), 1, 0);
  let refused = 0;
  for (let station = 1000; station < 101_000; station++) {
    if (table.learn(low(station), high(station, 5), 2, 1) === Learned.FULL) refused += 1;
  }
  assert.is(table.sizeOf(2), 2048);
  assert.is(refused, 100_000 - 2048);
  for (let station = 0; station < 100; station++) assert.is(table.lookup(low(station), high(station), 2), 1);
  assert.is(table.learn(low(500), high(500), 1, 2), Learned.ADDED, 'the others still learn');
});

test('the same address in two VLANs is two stations', () => {
  const table = new MacTable();
  table.learn(low(7), high(7, 10), 1, 0);
  table.learn(low(7), high(7, 20), 2, 0);
  assert.is(table.lookup(low(7), high(7, 10), 0), 1);
  assert.is(table.lookup(low(7), high(7, 20), 0), 2);
  assert.is(table.lookup(low(7), high(7), 0), NO_MEMBER);
});

test('an entry is forgotten 300 s after it was last seen, and not before (IEEE 802.1D §7.9.2)', () => {
  const table = new MacTable();
  table.learn(low(1), high(1), 3, 100);
  assert.is(table.lookup(low(1), high(1), 399), 3);
  assert.is(table.lookup(low(1), high(1), 400), NO_MEMBER);
  table.learn(low(1), high(1), 3, 399);
  assert.is(table.lookup(low(1), high(1), 698), 3);
  table.sweep(1 << 14, 699);
  assert.is(table.size, 0);
  assert.is(table.sizeOf(3), 0);
});

test('sizes that cannot be are refused', () => {
  for (const options of [
    { capacity: 0 },
    { capacity: 1.5 },
    { capacity: 2 ** 21 },
    { capacity: 16, memberCapacity: 17 },
    { ageingSeconds: 0 },
    { ageingSeconds: Number.NaN },
  ]) {
    assert.throws(
      () => new MacTable(options),
      (error: unknown) => error instanceof VirtioError && error.code === ErrorCode.INVALID_ARGUMENT,
      JSON.stringify(options),
    );
  }
});

test.run();
