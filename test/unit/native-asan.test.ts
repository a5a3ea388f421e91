/** Builds the addon's Node-free parts with the address and undefined-behaviour sanitizers, and runs their own tests. */

import { spawnSync } from 'node:child_process';
import { existsSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';

const FOLDER = fileURLToPath(new URL('../../../native', import.meta.url));
const COPY_PARTS = [
  ...['copy_engine', 'copy_engine_relay', 'dirty_log', 'memory_table'],
  ...['mapping', 'sigbus_guard', 'translation_windows'],
];
const DESCRIPTOR_PARTS = ['descriptors', 'unix_socket', 'threads'];
const FLAGS = ['-g1', '-O1', '-std=c++17', '-D_GNU_SOURCE', '-Wall', '-Wextra', '-Werror', '-fno-exceptions'];
const SANITIZERS = ['-fsanitize=address,undefined', '-fno-sanitize-recover=all', '-fno-omit-frame-pointer'];

const test = suite<{ folder: string }>('native parts under sanitizers');

const isFull = process.env['VIRTIO_PMD_FULL'] === '1';
const hasCompiler = spawnSync('g++', ['--version']).status === 0;

test.before((context) => {
  context.folder = mkdtempSync(join(tmpdir(), 'virtio-pmd-'));
});

test.after((context) => {
  rmSync(context.folder, { recursive: true });
});

function compile(...values: string[]): void {
  const options = [...FLAGS, ...SANITIZERS, `-I${join(FOLDER, 'src')}`];
  const built = spawnSync('g++', [...options, ...values], { timeout: 120_000 });
  assert.is(built.status, 0, built.stderr.toString());
}

/** The object file of one part, compiled once for all programs. */
function objectOf(folder: string, part: string): string {
  const object = join(folder, `${part}.o`);
  if (!existsSync(object)) compile('-c', join(FOLDER, 'src', `${part}.cc`), '-o', object);
  return object;
}

/** Compiles one test program with the `parts` and runs it with `values`. */
function buildAndRun(folder: string, name: string, parts: readonly string[], ...values: string[]): void {
  const program = join(folder, name);
  const objects = parts.map((part) => objectOf(folder, part));
  compile(join(FOLDER, 'test', `${name}.cc`), ...objects, '-lpthread', '-o', program);
  // The SIGBUS tests bring their own handler; the sanitizer's would only print and exit.
  const env = { ...process.env, ASAN_OPTIONS: 'handle_sigbus=0:detect_leaks=0' };
  const ran = spawnSync(program, values, { env, timeout: 240_000 });
  assert.is(ran.status, 0, `${ran.signal ?? ''} ${ran.stderr}`);
  assert.is(ran.stdout.toString(), 'ok\n');
}

if (hasCompiler) {
  test('the copy engine against a model that copies byte by byte', ({ folder }) =>
    buildAndRun(folder, 'copy_engine_test', COPY_PARTS, '20'));
  test('headers that stay where they stand, and those that nobody reads', ({ folder }) =>
    buildAndRun(folder, 'copy_engine_header_test', COPY_PARTS, isFull ? '400' : '40'));
  test('packets between two guests against a model that copies byte by byte', ({ folder }) =>
    buildAndRun(folder, 'copy_engine_relay_test', COPY_PARTS, isFull ? '400' : '60'));
  test('windows, regions and the dirty log against a model that goes byte by byte', ({ folder }) =>
    buildAndRun(folder, 'translation_test', COPY_PARTS, isFull ? '150' : '6'));
  test('the dirty log: every bit, none lost between threads, none too early', ({ folder }) =>
    buildAndRun(folder, 'dirty_log_test', COPY_PARTS, isFull ? '60' : '5'));
  test('the SIGBUS guard', ({ folder }) => buildAndRun(folder, 'sigbus_guard_test', COPY_PARTS));
  test('descriptors, sockets and threads', ({ folder }) => buildAndRun(folder, 'descriptors_test', DESCRIPTOR_PARTS));
} else {
  test.skip('g++ is missing: apt-get install g++', () => {});
}

test.run();
