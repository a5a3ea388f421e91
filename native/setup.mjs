/** Makes a checkout ready to run: dependencies, native addon, compiled TypeScript. Quick when all is there. */

import { spawnSync } from 'node:child_process';
import { existsSync, statSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

const root = join(dirname(fileURLToPath(import.meta.url)), '..');

function run(what, command, args) {
  const result = spawnSync(command, args, { cwd: root, stdio: ['ignore', 'pipe', 'pipe'] });
  if (result.status !== 0) {
    process.stderr.write(`${result.stdout}${result.stderr}\nvirtio-pmd: ${what} failed (the output is above)\n`);
    process.exit(1);
  }
}

/** Whether node_modules is from this lock file. */
function dependenciesAreCurrent() {
  const installed = join(root, 'node_modules', '.package-lock.json');
  return existsSync(installed) && statSync(installed).mtimeMs >= statSync(join(root, 'package-lock.json')).mtimeMs;
}

if (!dependenciesAreCurrent()) {
  process.stderr.write('virtio-pmd: installing dependencies\n');
  run('npm ci', 'npm', ['ci', '--no-audit', '--no-fund']);
}
run('the native build', process.execPath, [join(root, 'native', 'build.mjs')]);
run('the TypeScript build', process.execPath, [join(root, 'node_modules', 'typescript', 'bin', 'tsc'), '--build']);
