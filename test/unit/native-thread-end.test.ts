/** A process that ends while its threads are still loading the addon: it ends, and nothing is aborted. */

import { spawnSync } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';

const FOLDER = fileURLToPath(new URL('../../../native', import.meta.url));
/** Of them one in twenty met it, when the addon could not do with threads that are ended. */
const ROUNDS = 30;
const THREADS = 3;

const PROGRAM = `
  const { Worker } = require('node:worker_threads');
  const load = "require('node-gyp-build')(process.env.ADDON)";
  for (let count = 0; count < ${THREADS}; count++) new Worker(load, { eval: true });
  setTimeout(() => process.exit(0), Number(process.env.MILLISECONDS));
`;

const test = suite('native, threads that are ended');

test('a process may end at any moment of that', () => {
  for (let round = 0; round < ROUNDS; round++) {
    const milliseconds = 20 + (25 * round) / ROUNDS;
    const env = { ...process.env, ADDON: FOLDER, MILLISECONDS: String(milliseconds) };
    const { status, signal, stderr } = spawnSync(process.execPath, ['-e', PROGRAM], {
      env,
      cwd: FOLDER,
      timeout: 20_000,
    });
    assert.equal([status, signal], [0, null], `after ${milliseconds} ms: ${stderr}`);
  }
});

test.run();
