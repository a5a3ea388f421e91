/**
 * Makes a checkout ready to run: dependencies, native addon, compiled TypeScript. Quick when all is there.
 *
 * `--clean` compiles from nothing, for packing: no output of a file that is gone is left behind.
 * Progress and errors go to standard error, so that what the command itself prints stays clean.
 */

import { spawn } from 'node:child_process';
import { chmodSync, existsSync, readFileSync, rmSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

const root = join(dirname(fileURLToPath(import.meta.url)), '..');
const SILENT_MS = 2000;

function fail(message) {
  process.stderr.write(`virtio-pmd: ${message}\n`);
  process.exit(1);
}

function checkNode() {
  const [major, minor] = process.versions.node.split('.').map(Number);
  if (major < 20 || (major === 20 && minor < 17)) {
    fail(`Node ${process.versions.node} is too old (install Node 20.17 or later)`);
  }
}

/** Says after two seconds that `what` is under way, on a terminal with the time that counts; returns how to end it. */
function progress(what) {
  const began = Date.now();
  const seconds = () => Math.round((Date.now() - began) / 1000);
  const terminal = process.stderr.isTTY;
  let said = false;
  const timer = setInterval(() => {
    if (Date.now() - began < SILENT_MS) return;
    if (terminal) process.stderr.write(`\r\x1b[Kvirtio-pmd: ${what} … ${seconds()} s`);
    else if (!said) process.stderr.write(`virtio-pmd: ${what} …\n`);
    said = true;
  }, 500);
  return (outcome) => {
    clearInterval(timer);
    if (said)
      process.stderr.write(`${terminal ? '\r\x1b[K' : ''}virtio-pmd: ${what}: ${outcome} after ${seconds()} s\n`);
  };
}

/** Runs one step, quietly unless it fails or takes long. */
function run(what, command, args) {
  return new Promise((resolve) => {
    const done = progress(what);
    const output = [];
    const child = spawn(command, args, { cwd: root, stdio: ['ignore', 'pipe', 'pipe'] });
    child.stdout.on('data', (chunk) => output.push(chunk));
    child.stderr.on('data', (chunk) => output.push(chunk));
    child.on('error', (error) => {
      done('failed');
      fail(`${what} failed: ${error.message}`);
    });
    child.on('close', (status, signal) => {
      done(status === 0 ? 'done' : 'failed');
      if (status === 0) return resolve();
      process.stderr.write(Buffer.concat(output));
      fail(`${what} failed with ${signal ?? `status ${status}`} (its output is above)`);
    });
  });
}

/** Whether node_modules holds what the lock file names: every package, in that version, with that hash. */
function dependenciesAreCurrent() {
  try {
    const wanted = JSON.parse(readFileSync(join(root, 'package-lock.json'), 'utf8')).packages;
    const installed = JSON.parse(readFileSync(join(root, 'node_modules', '.package-lock.json'), 'utf8')).packages;
    return Object.entries(wanted).every(([path, lock]) => {
      if (path === '') return true;
      const found = installed[path];
      // What is made for another system or processor is in the lock, but not installed here.
      if (found === undefined) return lock.optional === true;
      return (
        found.version === lock.version &&
        found.integrity === lock.integrity &&
        existsSync(join(root, path, 'package.json'))
      );
    });
  } catch {
    return false;
  }
}

/** The npm that runs this, or the one on the path. */
function npm(args) {
  const cli = process.env['npm_execpath'];
  return cli !== undefined && /npm-cli\.[cm]?js$/.test(cli) && existsSync(cli)
    ? [process.execPath, [cli, ...args]]
    : ['npm', args];
}

checkNode();
if (!dependenciesAreCurrent()) {
  // `npm ci` runs the package's install script, which builds the addon.
  await run(
    'installing dependencies and building the addon',
    ...npm(['ci', '--include=dev', '--no-audit', '--no-fund']),
  );
}
await run('building the addon', process.execPath, [join(root, 'native', 'build.mjs')]);
if (process.argv.includes('--clean')) rmSync(join(root, 'dist'), { recursive: true, force: true });
await run('compiling', process.execPath, [join(root, 'node_modules', 'typescript', 'bin', 'tsc'), '--build']);
// npx does this when it first links a checkout, and not for one that is made anew at the same path.
chmodSync(join(root, 'dist', 'driver', 'cli', 'main.js'), 0o755);
