/** The test runner: what to run, in which order, on which Node, and what comes of it. */

import { join } from 'node:path';

import { FullRecord } from './full-record.js';
import { machineState } from './machine-state.js';
import { fetchNode, type NodeBinary, nodeComplaint, otherVersions, runningNode } from './node-versions.js';
import { installPeers, missingPeers, type PeerName, packagesOf } from './peers.js';
import { type Counts, Report, type ReportStream, type SuiteResult } from './report.js';
import { type FileResult, machineChanges, runFile } from './run-file.js';
import { CONCURRENCY, findTestFiles, SUITES, type Suite, selectTestFiles, type TestFile } from './test-files.js';

export interface RunnerOptions {
  /** The checkout: test/ holds the sources, dist/test/ what was compiled from them. */
  readonly root: string;
  /** Suites, or parts of file names; none means all. */
  readonly names: readonly string[];
  /** Install missing peers. */
  readonly setup: boolean;
  /** Full counts. */
  readonly full: boolean;
  /** Real peers that some test needs. */
  readonly peers: readonly PeerName[];
  /** Only say what there is. */
  readonly list: boolean;
  /** Also run on the other versions of Node. */
  readonly otherNodes: boolean;
  /** Nothing may be missing, skipped or left behind. */
  readonly strict: boolean;
  readonly stream: ReportStream;
  readonly signal: AbortSignal;
}

const FAILURE: Counts = { passed: 0, failed: 1, skipped: 0 };
/** A release line of Node on which nothing could run, where that is allowed. */
const SKIP: Counts = { passed: 0, failed: 0, skipped: 1 };

/** Programs in C++, started by their test: the same on every version of Node. */
const NODE_FREE = 'native-asan';

/** Which files run again on the other versions of Node. */
const runsOnAllNodes = ({ suite, name }: TestFile): boolean =>
  !name.includes(NODE_FREE) && (suite === 'unit' || suite === 'conformance' || name.includes('loopback'));

class Runner {
  readonly #options: RunnerOptions;
  readonly #report: Report;
  readonly #record: FullRecord | undefined;
  readonly #suites: SuiteResult[] = [];
  /** What counts beside test files. */
  readonly #extra: Counts[] = [];

  constructor(options: RunnerOptions) {
    this.#options = options;
    this.#report = new Report(options.stream);
    this.#record = options.full ? new FullRecord(options.root) : undefined;
  }

  /** Resolves to the exit status. */
  async run(): Promise<number> {
    const { root, names, list } = this.#options;
    const { selected, unmatched } = selectTestFiles(findTestFiles(root), names);
    if (unmatched.length > 0) {
      this.#report.line(`no test file matches ${unmatched.join(', ')} (--list says what there is)`);
      return 2;
    }
    if (list) return this.#list(selected);
    const complaint = nodeComplaint(runningNode.version);
    if (complaint !== undefined) this.#fail(complaint);
    else if (selected.length === 0) this.#fail('there is no test file');
    else await this.#runAll(selected);
    if (this.#options.signal.aborted) this.#fail('interrupted: not all files ran');
    if (this.#record !== undefined) this.#report.line(`\nfull results: ${this.#record.finish(this.#suites)}`);
    return this.#report.end(this.#suites, this.#extra).failed > 0 ? 1 : 0;
  }

  async #runAll(files: readonly TestFile[]): Promise<void> {
    await this.#installPeers();
    await this.#runSuites(files, runningNode, '');
    if (this.#options.otherNodes) await this.#runOtherNodes(files.filter(runsOnAllNodes));
  }

  #list(files: readonly TestFile[]): number {
    for (const file of files) {
      const bound = this.#options.full ? file.fullBoundSeconds : file.boundSeconds;
      this.#report.line(`${file.name}  (at most ${bound} s)`);
    }
    return 0;
  }

  #fail(problem: string): void {
    this.#report.line(`! ${problem}`);
    this.#extra.push(FAILURE);
  }

  async #installPeers(): Promise<void> {
    const missing = missingPeers(this.#options.peers);
    if (missing.length === 0) return;
    const packages = packagesOf(missing).join(' ');
    const wanted = this.#options.setup || this.#options.strict;
    if (wanted && process.getuid?.() === 0) {
      try {
        await installPeers(missing);
        return;
      } catch (error) {
        this.#report.line(`! ${(error as Error).message}`);
      }
    }
    const still = `without ${packages} the tests that need them`;
    if (this.#options.strict) this.#fail(`${still} cannot run, and where CI is set nothing may be skipped`);
    else this.#report.line(`${still} are skipped (as root: npm test -- --setup)`);
  }

  async #runOtherNodes(files: readonly TestFile[]): Promise<void> {
    if (files.length === 0) return;
    for (const version of otherVersions(runningNode.version)) {
      if (this.#options.signal.aborted) return;
      let node: NodeBinary;
      try {
        node = await fetchNode(version, join(this.#options.root, '.cache'));
      } catch (error) {
        const problem = `Node ${version} could not be fetched: ${(error as Error).message}`;
        if (this.#options.strict) this.#fail(problem);
        else this.#extra.push(SKIP);
        if (!this.#options.strict) this.#report.line(`\nskipped: all tests on Node ${version} (${problem})`);
        continue;
      }
      await this.#runSuites(files, node, ` on Node ${version}`);
    }
  }

  async #runSuites(files: readonly TestFile[], node: NodeBinary, titleEnd: string): Promise<void> {
    for (const suite of SUITES) {
      const own = files.filter((file) => file.suite === suite);
      if (own.length === 0 || this.#options.signal.aborted) continue;
      this.#suites.push(await this.#runSuite(suite, own, node, `${suite}${titleEnd}`));
    }
  }

  async #runSuite(suite: Suite, files: readonly TestFile[], node: NodeBinary, title: string): Promise<SuiteResult> {
    const concurrency = Math.min(CONCURRENCY[suite], files.length);
    const results: FileResult[] = [];
    const before = machineState();
    const began = performance.now();
    this.#report.startSuite(title, files.length);
    const waiting = [...files];
    const work = async () => {
      for (let file = waiting.shift(); file !== undefined; file = waiting.shift()) {
        if (this.#options.signal.aborted) return;
        results.push(await this.#runFile(file, node, concurrency === 1));
      }
    };
    await Promise.all(Array.from({ length: concurrency }, work));
    this.#report.endSuite();
    if (concurrency > 1 && this.#options.strict) {
      // Files ran side by side, so that a change is nobody's in particular.
      for (const change of await machineChanges(before, { mine: undefined, hugepages: true }))
        this.#fail(`${title}: ${change}`);
    }
    return { title, files: results, seconds: (performance.now() - began) / 1000 };
  }

  async #runFile(file: TestFile, node: NodeBinary, alone: boolean): Promise<FileResult> {
    const earlier = this.#record?.passedBefore(file.name, node.version);
    if (earlier !== undefined) {
      this.#report.endFile(earlier, ' (passed before)');
      return earlier;
    }
    this.#report.startFile(file.name);
    const { full, strict, signal } = this.#options;
    const result = await runFile(file, { node, full, strict, alone, signal });
    if (!signal.aborted) this.#record?.append(result);
    this.#report.endFile(result);
    return result;
  }
}

/** Runs what `options` ask for; resolves to the exit status: 0 all passed, 1 something failed, 2 wrong usage. */
export const runTests = (options: RunnerOptions): Promise<number> => new Runner(options).run();
