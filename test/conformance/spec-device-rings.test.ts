/** What the device owes the specification in its rings, whatever shape a driver gives its chains (spec-E7 to E9, E11, E12). */

import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { Feature, FeatureSet } from '../../driver/spec/features.js';
import { assertPackets, pattern } from '../support/hand-guest.js';
import { randomNumbers } from '../support/memory-threads.js';
import { OddGuest } from '../support/spec/odd-guest.js';

const test = suite('rings of a device');
const ROUNDS = process.env['VIRTIO_PMD_FULL'] === undefined ? 400 : 20_000;
const { VERSION_1, MRG_RXBUF, INDIRECT_DESC, EVENT_IDX, RING_PACKED } = Feature;
const LEAST = 1526;

for (const packed of [false, true]) {
  for (const eventIndex of [false, true]) {
    for (const mergeable of [true, false]) {
      const features = FeatureSet.of(
        ...[VERSION_1, INDIRECT_DESC],
        ...(packed ? [RING_PACKED] : []),
        ...(eventIndex ? [EVENT_IDX] : []),
        ...(mergeable ? [MRG_RXBUF] : []),
      );
      test(`spec-E7, spec-E8, spec-E9, spec-E11, spec-E12: ${features}`, () => {
        const random = randomNumbers(packed ? 7 : 8);
        using guest = new OddGuest(features, random);
        const sent: Uint8Array[] = [];
        const came: Uint8Array[] = [];
        for (let round = 0; round < ROUNDS; round++) {
          for (let count = random(4); count > 0; count--) {
            const packet = pattern(sent.length, 14 + random(random(3) === 0 ? 1400 : 100));
            if (guest.send(packet)) sent.push(packet);
          }
          for (let count = random(4); count > 0; count--)
            guest.post(mergeable ? 12 + random(1000) : LEAST + random(400));
          came.push(...guest.turn());
        }
        for (let turn = 0; turn < 1000 && came.length < sent.length; turn++) {
          while (guest.post(LEAST));
          came.push(...guest.turn());
        }
        assert.equal(guest.violations.lines, []);
        assertPackets(came, sent);
        assert.ok(guest.published > ROUNDS, `${guest.published} chains`);
        assert.equal(guest.hand.events, []);
      });
    }
  }
}

test.run();
