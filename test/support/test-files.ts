/** Which test files there are, which of them were asked for, and how long each may take. */

import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';

/** The suites, in the order in which they run: folders of test/. */
export const SUITES = ['unit', 'conformance', 'abuse', 'interop', 'guest'] as const;
export type Suite = (typeof SUITES)[number];

/** Files of a suite that run at the same time. Real peers want both processors for themselves; an emulated guest takes one. */
export const CONCURRENCY: Readonly<Record<Suite, number>> = {
  unit: 2,
  conformance: 2,
  abuse: 2,
  interop: 1,
  guest: 2,
};

/** Time a file may take when it says nothing. */
const DEFAULT_BOUND_SECONDS = 120;
/** How much longer a file may take at full counts when it says nothing. */
const FULL_FACTOR = 20;

export interface TestFile {
  readonly suite: Suite;
  /** `unit/layout.test.ts` */
  readonly name: string;
  /** The compiled file, which need not exist. */
  readonly script: string;
  /** Time the file may take. */
  readonly boundSeconds: number;
  /** Time the file may take at full counts. */
  readonly fullBoundSeconds: number;
}

/**
 * A file may take as long as it says by `export const timeBoundSeconds = 300;`, and at full counts by
 * `export const fullTimeBoundSeconds = 7200;`, each on a line of its own with a plain number.
 */
function boundIn(text: string, name: string): number | undefined {
  const found = new RegExp(`^export const ${name} = (\\d+);`, 'm').exec(text);
  return found === null ? undefined : Number(found[1]);
}

function describe(root: string, suite: Suite, source: string): TestFile {
  const script = join(root, 'dist', 'test', suite, source.replace(/\.ts$/, '.js'));
  const text = existsSync(script) ? readFileSync(script, 'utf8') : '';
  const boundSeconds = boundIn(text, 'timeBoundSeconds') ?? DEFAULT_BOUND_SECONDS;
  const fullBoundSeconds = boundIn(text, 'fullTimeBoundSeconds') ?? boundSeconds * FULL_FACTOR;
  return { suite, name: `${suite}/${source}`, script, boundSeconds, fullBoundSeconds };
}

/**
 * Returns the test files of the checkout at `root`, suite by suite.
 *
 * Sources are what counts: what was compiled from a source that is gone is not run.
 */
export function findTestFiles(root: string): TestFile[] {
  return SUITES.flatMap((suite) => {
    const folder = join(root, 'test', suite);
    if (!existsSync(folder)) return [];
    const sources = readdirSync(folder).filter((name) => name.endsWith('.test.ts'));
    return sources.sort().map((source) => describe(root, suite, source));
  });
}

/** Files that `name` means: those of the suite of that name, or those with it in their name. */
function matching(files: readonly TestFile[], name: string): TestFile[] {
  if ((SUITES as readonly string[]).includes(name)) return files.filter((file) => file.suite === name);
  const part = name.replace(/^(\.\/)?(dist\/)?test\//, '').replace(/\.js$/, '.ts');
  return files.filter((file) => file.name.includes(part));
}

/** Returns the files that any of `names` means, in their own order, and the names that mean none. */
export function selectTestFiles(
  files: readonly TestFile[],
  names: readonly string[],
): { readonly selected: readonly TestFile[]; readonly unmatched: readonly string[] } {
  if (names.length === 0) return { selected: files, unmatched: [] };
  const chosen = new Set(names.flatMap((name) => matching(files, name)));
  return {
    selected: files.filter((file) => chosen.has(file)),
    unmatched: names.filter((name) => matching(files, name).length === 0),
  };
}
