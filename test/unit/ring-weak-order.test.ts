/** The packed rings where a processor may do loads in any order: their own tests, on a machine that says to be such a one. */

import { execFile } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';

export const timeBoundSeconds = 120;

/** Before anything else is loaded. */
const OTHER_MACHINE = "data:text/javascript,Object.defineProperty(process,'arch',{value:'arm64'})";

const test = suite('packed rings, loads in any order');

for (const name of ['ring-packed-device', 'ring-in-order', 'ring-property']) {
  test(name, async () => {
    const file = fileURLToPath(new URL(`./${name}.test.js`, import.meta.url));
    // Rejects where one of them fails.
    const { stdout } = await promisify(execFile)(process.execPath, ['--import', OTHER_MACHINE, file]);
    assert.match(stdout, /Total:\s+[1-9]/);
  });
}

test.run();
