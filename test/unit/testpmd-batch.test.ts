/** A testpmd that is told to end in the middle of what its lcores say: no line of theirs is lost. */

import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { withFolder } from '../support/temp-folder.js';
import { runTestpmd } from '../support/testpmd-batch.js';

const test = suite('testpmd batch');

/** Says that it has received a packet, and `words` once it is told to end. */
const saying = (words: string): readonly string[] => [
  'sh',
  '-c',
  `printf 'Press enter to exit\\nport 0/queue 0: received 1 packets\\n'; read line; printf '${words}'`,
  'sh',
];

for (const [where, words] of [
  [
    'between two lines',
    'Telling cores to stop...port 0/queue 0: sent 1 packets\\n\\nWaiting for lcores to finish...\\n',
  ],
  ['in one line', 'port 0/queue 0: Telling cores to stop...sent \\nWaiting for lcores to finish...\\n1 packets\\n'],
] as const) {
  test(`the end ${where}`, async () => {
    await withFolder(async (folder) => {
      const batch = { program: saying(words), vdevs: [], options: [], commands: [], folder };
      const output = await runTestpmd({ ...batch, until: /received/ });
      assert.equal(
        output.split('\n').filter((line) => /^port/.test(line)),
        ['port 0/queue 0: received 1 packets', 'port 0/queue 0: sent 1 packets'],
      );
    });
  });
}

test.run();
