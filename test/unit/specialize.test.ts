/** Objects of packet paths: each instance has its fields where the others have theirs, or every look at one is a search. */

import { setFlagsFromString } from 'node:v8';
import { runInThisContext } from 'node:vm';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';

import { burstJobs } from '../../driver/backend/burst-jobs.js';
import { freeList } from '../../driver/memory/free-list.js';
import type { SharedStack } from '../../driver/memory/shared-stack.js';
import { rxPackets } from '../../driver/net/rx-packets.js';
import { RingPair } from '../support/ring-pair.js';

setFlagsFromString('--allow-natives-syntax');
const hasFastFields = runInThisContext('(object) => %HasFastProperties(object)') as (object: object) => boolean;
const haveOneShape = runInThisContext('(a, b) => %HaveSameMap(a, b)') as (a: object, b: object) => boolean;

const test = suite('specialized code');

test('no instance is a dictionary, and all of a kind have one shape', () => {
  const make = (): Record<string, object> => {
    using pair = new RingPair({ size: 16, eventIndex: false, indirect: false, start: 0 });
    using packedPair = new RingPair({ size: 16, eventIndex: false, indirect: false, start: 0x8000, packed: true });
    const { pool, engine, driver, device } = pair;
    const packed = { packedDriver: packedPair.driver, packedDevice: packedPair.device };
    const list = freeList(new Uint32Array(64), {} as SharedStack);
    const packets = rxPackets(pool, driver, 12, true);
    return { driver, device, ...packed, list, packets, jobs: burstJobs(pool, engine, 12) };
  };
  const kinds = [make(), make(), make()];
  for (const [index, made] of kinds.entries()) {
    for (const [kind, object] of Object.entries(made)) {
      assert.ok(hasFastFields(object), `${kind} ${index} is a dictionary`);
      assert.ok(haveOneShape(object, kinds[0]![kind]!), `${kind} ${index} has a shape of its own`);
    }
  }
});

test.run();
