/** Builds the addon's Node-free parts with the address and undefined-behaviour sanitizers, and runs their own tests. */

import { spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';

const FOLDER = fileURLToPath(new URL('../../../native', import.meta.url));
const COPY_PARTS = ['copy_engine', 'memory_table', 'mapping', 'sigbus_guard'];
const DESCRIPTOR_PARTS = ['descriptors', 'unix_socket', 'threads'];
const FLAGS = ['-g', '-O1', '-std=c++17', '-D_GNU_SOURCE', '-Wall', '-Wextra', '-Werror', '-fno-exceptions'];
const SANITIZERS = ['-fsanitize=address,undefined', '-fno-sanitize-recover=all', '-fno-omit-frame-pointer'];

const test = suite<{ folder: string }>('native parts under sanitizers');

const hasCompiler = spawnSync('g++', ['--version']).status === 0;

test.before((context) => {
  context.folder = mkdtempSync(join(tmpdir(), 'virtio-pmd-'));
});

test.after((context) => {
  rmSync(context.folder, { recursive: true });
});

/** Compiles one test program and runs it of the `parts` and runs it with `values`. */
function buildAndRun(folder: string, name: string, parts: readonly string[], ...values: string[]): void {
  const program = join(folder, name);
  const sources = [join(FOLDER, 'test', `${name}.cc`), ...parts.map((part) => join(FOLDER, 'src', `${part}.cc`))];
  const include = [`-I${join(FOLDER, 'src')}`];
  const built = spawnSync('g++', [...FLAGS, ...SANITIZERS, ...include, ...sources, '-lpthread', '-o', program], {
    timeout: 120_000,
  });
  assert.is(built.status, 0, built.stderr.toString());
  // The SIGBUS tests bring their own handler; the sanitizer's would only print and exit.
  const env = { ...process.env, ASAN_OPTIONS: 'handle_sigbus=0:detect_leaks=0' };
  const ran = spawnSync(program, values, { env, timeout: 60_000 });
  assert.is(ran.status, 0, `${ran.signal ?? ''} ${ran.stderr}`);
  assert.is(ran.stdout.toString(), 'ok\n');
}

if (hasCompiler) {
  test('the copy engine against a model that copies byte by byte', ({ folder }) =>
    buildAndRun(folder, 'copy_engine_test', COPY_PARTS, '20'));
  test('the SIGBUS guard', ({ folder }) => buildAndRun(folder, 'sigbus_guard_test', COPY_PARTS));
  test('descriptors, sockets and threads', ({ folder }) => buildAndRun(folder, 'descriptors_test', DESCRIPTOR_PARTS));
} else {
  test.skip('g++ is missing: apt-get install g++', () => {});
}

test.run();
