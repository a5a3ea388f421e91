/** The lock file: complete for every platform, and silent about where packages come from. */

import { readFileSync } from 'node:fs';

import { suite } from 'uvu';
import * as assert from 'uvu/assert';

interface Locked {
  readonly resolved?: string;
  readonly version?: string;
  readonly integrity?: string;
  readonly os?: readonly string[];
  readonly optionalDependencies?: Readonly<Record<string, string>>;
}

const lock = new URL('../../../package-lock.json', import.meta.url);
const packages: Readonly<Record<string, Locked>> = JSON.parse(readFileSync(lock, 'utf8')).packages;

const test = suite('lock file');

test('names no host', () => {
  const named = Object.entries(packages).filter(([, { resolved }]) => resolved !== undefined);
  assert.equal(named, []);
});

test('every package has a version, and a hash where it is installed on this system', () => {
  for (const [path, { version, integrity, os }] of Object.entries(packages)) {
    if (path === '') continue;
    assert.type(version, 'string', path);
    if (os === undefined) assert.type(integrity, 'string', path);
  }
});

test('holds what packages bring for other systems too: without, npm ci refuses the whole file', () => {
  const missing = Object.entries(packages).flatMap(([path, { optionalDependencies = {} }]) =>
    Object.keys(optionalDependencies).filter(
      (name) =>
        packages[`node_modules/${name}`] === undefined && packages[`${path}/node_modules/${name}`] === undefined,
    ),
  );
  assert.equal(missing, []);
});

test.run();
