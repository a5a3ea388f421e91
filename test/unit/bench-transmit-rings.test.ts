/** When a host's side of the bench takes its drivers for connected. */

import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { TransmitRings } from '../../bench/transmit-rings.js';
import { FeatureSet } from '../../driver/spec/features.js';

const test = suite('bench transmit rings');

const enabled = (ring: number, connection = 1) =>
  ({ type: 'vring', ring, state: 'enabled', size: 256, connection }) as const;

function watch(wanted: number) {
  const told: string[] = [];
  return { rings: new TransmitRings(wanted, (features) => told.push(features)), told };
}

test('one pair: its transmitq, once, with the features that were negotiated', () => {
  const { rings, told } = watch(1);
  rings.onEvent({ type: 'features', features: FeatureSet.fromU64(0x1_0000_8000n), connection: 1 });
  rings.onEvent(enabled(0));
  assert.equal(told, [], 'a receiveq says nothing');
  rings.onEvent(enabled(1));
  rings.onEvent(enabled(1));
  assert.equal(told, ['0x100008000']);
});

test('several pairs and connections: each of their transmitqs, whatever is enabled again meanwhile', () => {
  const { rings, told } = watch(4);
  for (const event of [enabled(1), enabled(1), enabled(3), enabled(1, 2)]) rings.onEvent(event);
  assert.is(told.length, 0);
  rings.onEvent(enabled(3, 2));
  assert.is(told.length, 1);
});

test('two servers count their connections apart', () => {
  const { rings, told } = watch(2);
  rings.onEvent(enabled(1), '/one');
  rings.onEvent({ ...enabled(1), state: 'started' }, '/other');
  assert.is(told.length, 0);
  rings.onEvent(enabled(1), '/other');
  assert.is(told.length, 1);
});

test.run();
