/** The import rules: what the table allows passes, and every kind of violation is found. */

import { spawnSync } from 'node:child_process';
import { cpSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

import { suite } from 'uvu';
import * as assert from 'uvu/assert';

const root = join(dirname(fileURLToPath(import.meta.url)), '..', '..', '..');

interface Violation {
  readonly from: string;
  readonly to: string;
  readonly rule: { readonly name: string };
}

/** Files that hang together and keep to the table. */
const SOUND = {
  'driver/errors.ts': `export class Fault extends Error {}`,
  'driver/spec/ring.ts': `import { Fault } from '../errors.js'; export const size = 1; export const fault = Fault;`,
  'native/index.ts': `export const native = 1;`,
  'driver/memory/pool.ts': `import { size } from '../spec/ring.js'; import { native } from '../../native/index.js';
export const pool = size + native;`,
  'driver/net/port.ts': `import { pool } from '../memory/pool.js'; export const port = pool;`,
  'driver/backend/device.ts': `import { pool } from '../memory/pool.js'; export const device = pool;
export type Device = number;`,
  'driver/index.ts': `export { port } from './net/port.js'; export { type Device, device } from './backend/device.js';`,
  'driver/thread.ts': `export { port } from './net/port.js';`,
  'driver/cli/main.ts': `import { port } from '../net/port.js'; import type { Device } from '../index.js';
import { run } from './worker.js'; export const main: Device = port + run;`,
  'driver/cli/worker.ts': `import { port } from '../thread.js'; export const run = port;`,
  'examples/swap.ts': `import { port } from 'virtio-pmd'; export const swap = port;`,
  'examples/worker.ts': `import { port } from 'virtio-pmd/thread'; export const run = port;`,
  'dist/driver/index.js': `export const port = 1;`,
  'dist/driver/thread.js': `export const port = 1;`,
};

/** Returns the violations found with `files` planted beside or over the sound ones, as `rule: from -> to`. */
function check(files: Readonly<Record<string, string>>): string[] {
  const folder = mkdtempSync(join(tmpdir(), 'imports-'));
  try {
    for (const name of ['package.json', 'tsconfig.json']) cpSync(join(root, name), join(folder, name));
    symlinkSync(join(root, 'node_modules'), join(folder, 'node_modules'));
    for (const [path, code] of Object.entries({ ...SOUND, ...files })) {
      mkdirSync(dirname(join(folder, path)), { recursive: true });
      writeFileSync(join(folder, path), code);
    }
    const cruiser = join(root, 'node_modules', 'dependency-cruiser', 'bin', 'dependency-cruise.mjs');
    const config = join(root, '.dependency-cruiser.cjs');
    const args = [cruiser, 'driver', 'native', 'examples', '--config', config, '--output-type', 'json'];
    const run = spawnSync(process.execPath, args, { cwd: folder, encoding: 'utf8' });
    const violations: Violation[] = JSON.parse(run.stdout).summary.violations;
    return violations.map(({ rule, from, to }) => `${rule.name}: ${from} -> ${to}`);
  } finally {
    rmSync(folder, { recursive: true });
  }
}

const test = suite('import rules');

test('what keeps to the table passes', () => {
  assert.equal(check({}), []);
});

test('violations are found, each by its rule', () => {
  const found = check({
    'driver/net/port.ts': `import { device } from '../backend/device.js'; export const port = device;`,
    'driver/backend/device.ts': `import { port } from '../net/port.js'; export const device: number = port;`,
    'driver/cli/main.ts': `import { pool } from '../memory/pool.js'; export const main = pool;`,
    'driver/cli/all.ts': `import { port } from '../index.js'; export const all = port;`,
    'driver/cli/late.ts': `export const late = () => import('../index.js');`,
    'driver/new/idea.ts': `import { size } from '../spec/ring.js'; export const idea = size;`,
    'driver/spec/lonely.ts': `export const lonely = 1;`,
    'driver/memory/view.ts': `import { suite } from 'uvu'; export const view = suite;`,
    'examples/inside.ts': `import { port } from '../driver/index.js'; export const inside = port;`,
  });
  for (const expected of [
    'driver-net-imports: driver/net/port.ts -> driver/backend/device.ts',
    'driver-backend-imports: driver/backend/device.ts -> driver/net/port.ts',
    'no-circular: driver/backend/device.ts -> driver/net/port.ts',
    'driver-cli-imports: driver/cli/main.ts -> driver/memory/pool.ts',
    'driver-cli-loads-the-index: driver/cli/all.ts -> driver/index.ts',
    'driver-cli-loads-the-index: driver/cli/late.ts -> driver/index.ts',
    'not-in-the-table: driver/new/idea.ts -> driver/spec/ring.ts',
    'no-orphans: driver/spec/lonely.ts -> driver/spec/lonely.ts',
    'library-not-to-dev-dependency: driver/memory/view.ts -> ',
    'examples-imports: examples/inside.ts -> driver/index.ts',
  ]) {
    assert.ok(
      found.some((violation) => violation.startsWith(expected)),
      `${expected} in\n${found.join('\n')}`,
    );
  }
});

test('an import of a type alone counts too', () => {
  const found = check({
    'driver/net/port.ts': `import type { Device } from '../backend/device.js'; export const port: Device = 1;`,
  });
  assert.equal(found, ['driver-net-imports: driver/net/port.ts -> driver/backend/device.ts']);
});

test('the command line takes nothing of the public files but what is public', () => {
  const publicNames = new Set(exportedNames(readFileSync(join(root, 'driver', 'index.ts'), 'utf8')));
  const taken = readdirSync(cli, { recursive: true, encoding: 'utf8' })
    .filter((name) => name.endsWith('.ts'))
    .flatMap((name) => libraryNames(name).map((what) => `${name}: ${what}`));
  assert.ok(taken.length > 50, `${taken.length} are found`);
  assert.equal(
    taken.filter((entry) => !publicNames.has(entry.replace(/.* /, ''))),
    [],
  );
});

const cli = join(root, 'driver', 'cli');
/** Free for all. */
const FREE = ['errors.js', 'units.js'].map((name) => join(root, 'driver', name));

/** `a` and `b` of `a, type b`. */
const namesIn = (list: string): string[] =>
  list
    .split(',')
    .map((name) => name.trim().replace(/^type /, ''))
    .filter((name) => name !== '');

const exportedNames = (code: string): string[] =>
  [...code.matchAll(/export (?:type )?\{([^}]*)\} from/g)].flatMap(([, list = '']) => namesIn(list));

/** What a file of the command line takes from elsewhere in driver/, now or later. */
function libraryNames(name: string): string[] {
  const path = join(cli, name);
  const code = readFileSync(path, 'utf8');
  const imports = [
    ...code.matchAll(/import (?:type )?\{([^}]*)\} from '(\.[^']*)'/g),
    ...code.matchAll(/const \{([^}]*)\} = await import\('(\.[^']*)'\)/g),
  ];
  return imports
    .filter(([, , from = '']) => {
      const target = join(dirname(path), from);
      return !target.startsWith(`${cli}/`) && !FREE.includes(target);
    })
    .flatMap(([, list = '']) => namesIn(list));
}

test.run();
