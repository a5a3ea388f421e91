/**
 * A test of the tests: every case of what a front-end or guest may do to the back-end (B1 to B62), and every known bug of
 * other back-ends that this one could have, is named by a test.
 */

import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { DeviceThread } from '../../driver/backend/device-thread.js';
import { NetDevice } from '../../driver/backend/net-device.js';
import { echoPort } from '../../driver/backend/ports/built-in.js';
import { offeredFeatures } from '../../driver/backend/vhost-user-features.js';
import { handlers } from '../../driver/backend/vhost-user-requests.js';
import { Feature, type FeatureSet } from '../../driver/spec/features.js';
import { frontendRequests } from '../../driver/spec/vhost-user.js';
import { findTestFiles } from '../support/test-files.js';

const test = suite('every case has a test');
const CASES = 62;
/** Bugs of control planes (1 to 33) and of data planes (34 to 66). */
const ROWS = 66;

/** Bugs that this back-end cannot have, and what would have to change for that. */
const NOT_APPLICABLE: Readonly<Record<number, { readonly why: string; holds(offered: FeatureSet): boolean }>> = {
  59: {
    why: 'the header grows with HASH_REPORT, which is not offered: there is one header length',
    holds: (offered) => !offered.has(Feature.HASH_REPORT),
  },
  61: {
    why: 'no state of a device is taken over: SET_DEVICE_STATE_FD is not served (the inflight region is, and is B46)',
    holds: () => !('SET_DEVICE_STATE_FD' in handlers) && 'SET_DEVICE_STATE_FD' in frontendRequests,
  },
};

/** Parts of cases that are about what is not offered; the rest of each case is tested. */
const NOT_OFFERED: Readonly<Record<string, Feature>> = {
  'row 60: entries of an RSS table (the command is refused, which is tested)': Feature.RSS,
};

const root = fileURLToPath(new URL('../../../', import.meta.url));

/** The names of all tests, as they stand in the sources; parts that are filled in are left as they are. */
function testNames(): string[] {
  return findTestFiles(root).flatMap(({ name }) => {
    const source = readFileSync(join(root, 'test', name), 'utf8');
    return [...source.matchAll(/\btest(?:\.only)?\(\s*(['"`])((?:\\.|(?!\1).)*)\1/gs)].map((found) => found[2]!);
  });
}

/** The numbers in `rows 4, 13 and 19`. */
const rowsOf = (name: string): number[] =>
  [...name.matchAll(/\brows? (\d+(?:(?:, | and )\d+)*)/g)].flatMap((found) => found[1]!.match(/\d+/g)!.map(Number));

const numbers = (count: number): number[] => Array.from({ length: count }, (_, index) => index + 1);

test('each of B1 to B62 is in the name of a test', () => {
  const named = new Set(
    testNames().flatMap((name) => [...name.matchAll(/abuse-B(\d+)/g)].map((found) => Number(found[1]))),
  );
  assert.equal(
    numbers(CASES).filter((number) => !named.has(number)),
    [],
    'cases without a test',
  );
  assert.equal(
    [...named].filter((number) => number < 1 || number > CASES),
    [],
    'cases that there are not',
  );
});

test('each known bug is in the name of a test, or cannot be one of this back-end', () => {
  const named = new Set(testNames().flatMap(rowsOf));
  const excused = Object.keys(NOT_APPLICABLE).map(Number);
  assert.equal(
    numbers(ROWS).filter((row) => !named.has(row) && !excused.includes(row)),
    [],
    'rows without a test',
  );
  assert.equal(
    excused.filter((row) => named.has(row)),
    [],
    'rows that have a test and need no excuse',
  );
});

test('what is not tested is not there', async () => {
  await using thread = await DeviceThread.start({ poolSize: 256 });
  await using device = new NetDevice(thread, { port: echoPort(), queuePairs: 2, iommu: true, mtu: 9000 });
  const offered = offeredFeatures(device);
  for (const [row, { why, holds }] of Object.entries(NOT_APPLICABLE)) assert.ok(holds(offered), `row ${row}: ${why}`);
  for (const [part, feature] of Object.entries(NOT_OFFERED)) assert.not.ok(offered.has(feature), part);
});

test.run();
