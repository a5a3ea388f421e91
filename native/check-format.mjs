/** Checks that the addon's sources are formatted as native/.clang-format says (`--write`: formats them). */

import { spawnSync } from 'node:child_process';
import { readdirSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

const sources = join(dirname(fileURLToPath(import.meta.url)), 'src');

const files = readdirSync(sources, { recursive: true })
  .filter((name) => /\.(cc|cpp|h|hpp)$/.test(name))
  .map((name) => join(sources, name));
const mode = process.argv.includes('--write') ? ['-i'] : ['--dry-run', '--Werror'];

const run = files.length === 0 ? { status: 0 } : spawnSync('clang-format', [...mode, ...files], { stdio: 'inherit' });
if (run.error?.code === 'ENOENT' && process.env.CI === undefined) {
  process.stdout.write('check:native skipped: clang-format is missing (apt-get install clang-format)\n');
} else if (run.error !== undefined) {
  process.stderr.write(`check:native: clang-format did not run: ${run.error.message}\n`);
  process.exit(1);
} else {
  if (run.status !== 0) process.stderr.write('check:native: run `node native/check-format.mjs --write`\n');
  process.exit(run.status ?? 1);
}
