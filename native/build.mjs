/** Builds the addon with node-gyp unless a build or prebuild that loads is there (`--force`: in any case). */

import { spawnSync } from 'node:child_process';
import { existsSync, readdirSync, statSync } from 'node:fs';
import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

const folder = dirname(fileURLToPath(import.meta.url));
const require = createRequire(import.meta.url);

/** Whether a prebuild, or a build newer than every source, is there. */
function isBuilt() {
  try {
    const addon = require('node-gyp-build').resolve(folder);
    const built = statSync(addon).mtimeMs;
    const sources = existsSync(join(folder, 'src')) ? readdirSync(join(folder, 'src')).map((name) => join('src', name)) : [];
    return ['binding.gyp', ...sources].every((name) => statSync(join(folder, name)).mtimeMs <= built);
  } catch {
    return false;
  }
}

function build() {
  const gyp = require.resolve('node-gyp/bin/node-gyp.js');
  const prefix = join(dirname(process.execPath), '..');
  const headers = existsSync(join(prefix, 'include', 'node', 'node_api.h')) ? [`--nodedir=${prefix}`] : [];
  const run = spawnSync(process.execPath, [gyp, 'rebuild', '--directory', folder, ...headers], { stdio: ['ignore', 'pipe', 'pipe'] });
  if (run.status !== 0) {
    process.stderr.write(`${run.stdout}${run.stderr}\n`);
    process.stderr.write('virtio-pmd: the native addon did not build (it needs a C++ compiler, make and python3: apt-get install build-essential python3)\n');
    process.exit(1);
  }
}

if (process.argv.includes('--force') || !isBuilt()) build();
