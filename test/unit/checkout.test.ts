/** What set-up leaves of a checkout. */

import { accessSync, constants } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { suite } from 'uvu';

const test = suite('checkout');

const PROGRAM = fileURLToPath(new URL('../../driver/cli/main.js', import.meta.url));

// npx links a checkout once a path and sees to this bit then: a second checkout at the path got "Permission denied".
test('the program is executable, whether npx has linked a checkout at this path before or not', () => {
  accessSync(PROGRAM, constants.X_OK);
});

test.run();
