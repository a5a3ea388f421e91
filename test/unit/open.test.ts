/** Opening a port: what stands when something above it fails is let go of, the last first. */

import { readdirSync, readFileSync } from 'node:fs';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { ErrorCode, type VirtioError } from '../../driver/errors.js';
import { openPort } from '../../driver/open.js';
import { until } from '../support/until.js';

const test = suite('opening a port');

/** Open descriptors, and mappings of our memory. */
const resources = (): readonly [descriptors: number, mappings: number] => [
  readdirSync('/proc/self/fd').length,
  readFileSync('/proc/self/maps', 'utf8').split('virtio-pmd').length,
];

test('an embedded device whose port cannot be made goes wholly, with its function and its thread', async () => {
  const refused = async (): Promise<void> => {
    const opening = openPort('loopback:', { pages: '4K', ringSize: 3 });
    assert.is(await opening.catch((error: VirtioError) => error.code), ErrorCode.INVALID_ARGUMENT);
  };
  await refused();
  const before = resources();
  for (let round = 0; round < 10; round++) await refused();
  const after = resources();
  assert.ok(after[0] <= before[0] && after[1] <= before[1], `${before} before, ${after} after`);
});

test('what fails to go keeps nothing else standing: the thread ends, and the first failure is told', async () => {
  const port = { module: new URL('../support/failing-port.js', import.meta.url).href, options: { at: 'close' } };
  const refused = async (): Promise<void> => {
    const opening = openPort('loopback:', { pages: '4K', ringSize: 3, device: { port } });
    assert.is(await opening.catch((error: VirtioError) => error.code), ErrorCode.INVALID_ARGUMENT);
  };
  const threads = (): number => readdirSync('/proc/self/task').length;
  await refused();
  const before = threads();
  for (let round = 0; round < 3; round++) await refused();
  // One that has ended is listed a moment longer.
  await until(() => threads() <= before, `${before} threads again, as before`);
});

test.run();
