/** Remembers what passed at full counts, so that a run of hours that was cut short goes on where it was. */

import { spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { appendFileSync, existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { cpus } from 'node:os';
import { join } from 'node:path';

import type { SuiteResult } from './report.js';
import { countsOf } from './report.js';
import type { FileResult } from './run-file.js';

/** Hash of everything compiled, for a checkout that git knows nothing of. */
function compiledState(root: string): string {
  const folder = join(root, 'dist');
  const hash = createHash('sha256');
  const names = existsSync(folder) ? readdirSync(folder, { recursive: true, encoding: 'utf8' }) : [];
  for (const name of names.filter((path) => path.endsWith('.js')).sort()) {
    hash.update(name).update(readFileSync(join(folder, name)));
  }
  return `files-${hash.digest('hex').slice(0, 16)}`;
}

/**
 * Names the state of the checkout: the commit, and where files were changed since, a hash of the changes; without
 * git a hash of what was compiled.
 */
export function checkoutState(root: string): string {
  const git = (...args: string[]) => spawnSync('git', args, { cwd: root, encoding: 'utf8', maxBuffer: 1 << 28 });
  const commit = git('rev-parse', 'HEAD');
  if (commit.status !== 0) return compiledState(root);
  const changes = git('status', '--porcelain').stdout;
  if (changes === '') return commit.stdout.trim();
  const untracked = git('ls-files', '--others', '--exclude-standard').stdout.split('\n').filter(Boolean);
  const hash = createHash('sha256').update(changes).update(git('diff', 'HEAD').stdout);
  for (const path of untracked) hash.update(readFileSync(join(root, path)));
  return `${commit.stdout.trim()}-${hash.digest('hex').slice(0, 8)}`;
}

const keyOf = (file: string, node: string): string => `${file} ${node}`;

export class FullRecord {
  readonly #path: string;
  readonly #resultPath: string;
  readonly #state: string;
  readonly #passed = new Map<string, FileResult>();

  /** Opens the record of the checkout at `root`; lines that a crash cut off are left out. */
  constructor(root: string) {
    const folder = join(root, '.cache', 'full');
    mkdirSync(folder, { recursive: true });
    this.#state = checkoutState(root);
    this.#path = join(folder, `${this.#state}.jsonl`);
    this.#resultPath = join(folder, `${this.#state}.json`);
    for (const line of existsSync(this.#path) ? readFileSync(this.#path, 'utf8').split('\n') : []) {
      try {
        const result: FileResult = { ...JSON.parse(line), output: '' };
        if (result.failed === 0 && result.skipped === 0) this.#passed.set(keyOf(result.file, result.node), result);
      } catch {
        // Not a whole line.
      }
    }
  }

  /** The result of a run of this file that passed, all of it. */
  passedBefore(file: string, node: string): FileResult | undefined {
    return this.#passed.get(keyOf(file, node));
  }

  append(result: FileResult): void {
    const { output: _output, ...kept } = result;
    appendFileSync(this.#path, `${JSON.stringify({ ...kept, at: new Date().toISOString() })}\n`);
  }

  /** Writes the whole outcome; returns the path of the file. */
  finish(suites: readonly SuiteResult[]): string {
    const outcome = {
      checkout: this.#state,
      at: new Date().toISOString(),
      machine: { processors: cpus().length, model: cpus()[0]?.model ?? 'unknown', arch: process.arch },
      ...countsOf(suites.flatMap((suite) => suite.files)),
      suites: suites.map(({ title, seconds, files }) => ({
        title,
        seconds,
        files: files.map(({ output: _output, ...file }) => file),
      })),
    };
    writeFileSync(this.#resultPath, `${JSON.stringify(outcome, null, 2)}\n`);
    return this.#resultPath;
  }
}
