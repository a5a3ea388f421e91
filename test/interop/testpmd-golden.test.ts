/** testpmd against DPDK's: the same scripts through both, what both say compared line by line. */

import { readdirSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { masked } from '../support/golden-masks.js';
import { runGolden } from '../support/golden-run.js';
import { readGoldenScript } from '../support/golden-script.js';
import { skipWithout } from '../support/skip.js';

export const timeBoundSeconds = 480;

const test = skipWithout(suite('testpmd, golden'), 'dpdk');
const folder = fileURLToPath(new URL('../../../test/golden/', import.meta.url));

for (const file of readdirSync(folder).sort()) {
  test(file.replace(/\.txt$/, ''), async () => {
    const script = readGoldenScript(`${folder}${file}`);
    const [theirs, ours] = await Promise.all([runGolden('dpdk', script), runGolden('ours', script)]);
    assert.is.not(theirs.status, null, `DPDK's ended by itself: ${theirs.output}`);
    assert.is.not(masked(theirs.output, true).trim(), '', 'there is something to compare');
    assert.fixture(masked(ours.output), masked(theirs.output, true));
    assert.is(ours.status, theirs.status, 'the exit status');
  });
}

test.run();
