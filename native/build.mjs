/**
 * Builds the addon with node-gyp unless a prebuild, or a build newer than every source, is there (`--force`: anew).
 *
 * Runs as the package's install script too, on machines of people who only use the package: it needs nothing
 * that is not shipped, and says in one line what is missing.
 */

import { spawnSync } from 'node:child_process';
import { existsSync, readdirSync, statSync } from 'node:fs';
import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

const folder = dirname(fileURLToPath(import.meta.url));
const require = createRequire(import.meta.url);
const force = process.argv.includes('--force');

/** Whether a prebuild, or a build newer than every source, is there. */
function isBuilt() {
  try {
    const load = require('node-gyp-build');
    const addon = load.resolve(folder);
    if (addon.startsWith(join(folder, 'prebuilds'))) {
      // Made on another machine: it may want a newer C library than this one has.
      load(folder);
      return true;
    }
    const built = statSync(addon).mtimeMs;
    const sources = readdirSync(join(folder, 'src'), { recursive: true }).map((name) => join('src', name));
    return ['binding.gyp', ...sources].every((name) => {
      const source = statSync(join(folder, name));
      return source.isDirectory() || source.mtimeMs <= built;
    });
  } catch {
    return false;
  }
}

/** node-gyp of a checkout, or the one that comes with npm when npm installs the package for somebody. */
function nodeGyp() {
  try {
    return require.resolve('node-gyp/bin/node-gyp.js');
  } catch {
    return process.env['npm_config_node_gyp'];
  }
}

function fail(message) {
  process.stderr.write(`virtio-pmd: ${message}\n`);
  process.exit(1);
}

function build() {
  if (process.platform !== 'linux') fail(`${process.platform} is not supported: virtio-pmd runs on Linux`);
  const gyp = nodeGyp();
  if (gyp === undefined) fail('there is no node-gyp to build the native addon with (run this through npm)');
  const prefix = join(dirname(process.execPath), '..');
  const headers = existsSync(join(prefix, 'include', 'node', 'node_api.h')) ? [`--nodedir=${prefix}`] : [];
  // Without --force only what changed is compiled again.
  const steps = force ? ['rebuild'] : ['configure', 'build'];
  const args = [gyp, ...steps, '--jobs', 'max', '--directory', folder, ...headers];
  const run = spawnSync(process.execPath, args, { stdio: ['ignore', 'pipe', 'pipe'], maxBuffer: 1 << 28 });
  if (run.status !== 0) {
    process.stderr.write(`${run.stdout ?? ''}${run.stderr ?? ''}${run.error?.message ?? ''}\n`);
    fail(
      'the native addon did not build, see above (it needs a C++ compiler, make and python3: apt-get install build-essential python3)',
    );
  }
}

if (force || !isBuilt()) build();
