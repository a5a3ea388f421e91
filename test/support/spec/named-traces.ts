/** Traces that each break one rule of rings and packets: what tests of the recorders are made of. */

import type { Test } from 'uvu';
import * as assert from 'uvu/assert';
import type { PackedStand, RawStandOptions, SplitStand } from './raw-stand.js';
import type { Rule } from './violations.js';

/** Makes a test of each trace over a stand of its own: the recorder names that rule, and no other. */
export const namesOver =
  <T extends SplitStand | PackedStand>(test: Test, Stand: new (options: RawStandOptions) => T) =>
  (rule: Rule, what: string, options: RawStandOptions, trace: (stand: T) => void): void => {
    test(`${rule} is named: ${what}`, () => {
      const stand = new Stand(options);
      trace(stand);
      assert.equal(stand.violations.rules, [rule], stand.violations.lines.join('\n'));
    });
  };

/** Two packets published, and the device has looked. */
export function published(stand: SplitStand | PackedStand): void {
  stand.send(0);
  stand.send(1);
  stand.driver();
  stand.device();
}
