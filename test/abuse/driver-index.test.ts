/** Each case of the driver's abuse matrix, D1 to D38, has a test that is named after it. */

import { readdirSync, readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';

const test = suite('index of the abuse of the driver');
const CASES = 38;
/** The folder of this file's source, from the one it runs in. */
const folder = join(dirname(fileURLToPath(import.meta.url)), '..', '..', '..', 'test', 'abuse');
/** A test whose name begins with a case. */
const NAMED = /(?:^|[\s(])(?:test\(\s*)?['"`]abuse-D(\d+): [^'"`]/gm;

/** Files that name a case in a test of theirs, by case. */
function namedBy(): Map<number, Set<string>> {
  const files = new Map<number, Set<string>>();
  for (const name of readdirSync(folder).filter((each) => each.startsWith('driver-') && each.endsWith('.test.ts'))) {
    for (const [, number] of readFileSync(join(folder, name), 'utf8').matchAll(NAMED)) {
      const at = Number(number);
      files.set(at, (files.get(at) ?? new Set()).add(name));
    }
  }
  return files;
}

test('D1 to D38 are each named by a test', () => {
  const files = namedBy();
  const missing = Array.from({ length: CASES }, (_, index) => index + 1).filter((number) => !files.has(number));
  assert.equal(missing, [], 'cases without a test');
});

test('no test is named after a case that is not there', () => {
  const unknown = [...namedBy().keys()].filter((number) => number < 1 || number > CASES);
  assert.equal(unknown, []);
});

/** Cases that are driven through a whole port, over the emulated function: those that begin after it is opened. */
test('from D9 on each case is driven through a whole port', () => {
  const files = namedBy();
  const wanting: number[] = [];
  for (let number = 9; number <= CASES; number++) {
    // Nothing is opened where VFIO gives no device.
    if (number === 37) continue;
    if (![...(files.get(number) ?? [])].some((name) => name.startsWith('driver-port-'))) wanting.push(number);
  }
  assert.equal(wanting, []);
});

test.run();
