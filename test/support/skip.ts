/** Tests that need something of the machine say so: where it is missing, they are skipped with the reason printed. */

import type { Test } from 'uvu';

import { missingPeers, type PeerName, packagesOf } from './peers.js';
import { SKIP_MARK } from './uvu-output.js';

/** Whether this machine is there for the tests: nothing may be skipped on it. */
const strict = process.env['CI'] !== undefined;

/** A suite that takes tests as `test` does and runs none of them. */
function skipping<T>(test: Test<T>, reason: string): Test<T> {
  const skip = (name?: string) => {
    console.log(`${SKIP_MARK}${name ?? 'a test'} (${reason})`);
    test.skip();
  };
  const ignored = Object.assign(() => {}, { each: () => {} });
  return Object.assign(skip, { only: skip, skip, before: ignored, after: ignored, run: test.run });
}

/**
 * Returns `test` when `condition` holds, otherwise a suite that skips its tests for `reason`.
 *
 * @throws Error where CI is set: a machine that tests releases must be able to run them all
 */
export function skipUnless<T>(test: Test<T>, condition: boolean, reason: string): Test<T> {
  if (condition) return test;
  if (strict) throw new Error(`cannot run here: ${reason}`);
  return skipping(test, reason);
}

/**
 * Returns `test` when all of `peers` are here, otherwise a suite that skips its tests and names the packages.
 *
 * Use: `const test = skipWithout(suite('dpdk'), 'dpdk', 'tshark');`
 */
export function skipWithout<T>(test: Test<T>, ...peers: readonly PeerName[]): Test<T> {
  const packages = packagesOf(missingPeers(peers));
  const noun = packages.length === 1 ? 'package' : 'packages';
  return skipUnless(test, packages.length === 0, `needs the Debian ${noun} ${packages.join(', ')}`);
}

/** Returns `test` when this process is root's, otherwise a suite that skips its tests. */
export const skipWithoutRoot = <T>(test: Test<T>): Test<T> => skipUnless(test, process.getuid?.() === 0, 'needs root');
