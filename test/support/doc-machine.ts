/**
 * Where a page's commands run: as root, with a network, processes, /run and /tmp of their own, so that they can be those of
 * the page, word for word, and nothing is left behind.
 */

import { type ChildProcess, spawn } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { setTimeout as pause } from 'node:timers/promises';

const READY_MS = 20_000;
/** Folders that commands of pages change: they change a copy. */
const COPIED = ['/etc/alternatives', '/etc/openvswitch', '/var/lib/dpkg/alternatives', '/var/lib/openvswitch'];
const EMPTY = ['/run', '/tmp', '/var/log/openvswitch'];

/** Prepares the folders, says so, and stays: when it ends, so does everything in the machine. */
const init = (root: string): string => `
  set -e
  for folder in ${COPIED.join(' ')}; do
    [ -d $folder ] || continue
    mount -t tmpfs copy /mnt; cp -a $folder/. /mnt/; mount --move /mnt $folder
  done
  for folder in ${EMPTY.filter((folder) => !root.startsWith(`${folder}/`)).join(' ')}; do
    [ ! -d $folder ] || mount -t tmpfs empty $folder
  done
  ip link set lo up
  echo ready
  exec sleep infinity`;

interface Run extends BackgroundRun {
  readonly child: ChildProcess;
  readonly ended: Promise<number | null>;
}

function collect(child: ChildProcess): Run {
  let output = '';
  for (const stream of [child.stdout, child.stderr]) {
    stream?.on('data', (chunk: Buffer) => {
      output += chunk.toString('utf8');
    });
  }
  const ended = new Promise<number | null>((resolve, reject) => {
    child.on('error', reject);
    child.on('close', resolve);
  });
  ended.then(
    (code) => {
      status = code;
    },
    () => {
      status = null;
    },
  );
  let status: number | null | undefined;
  return { child, output: () => output, status: () => status, ended };
}

async function until(run: Run, isReady: () => boolean, complaint: string): Promise<void> {
  for (const deadline = Date.now() + READY_MS; !isReady(); await pause(20)) {
    if (run.status() !== undefined || Date.now() > deadline) throw new Error(`${complaint}: ${run.output()}`);
  }
}

const shell = (commands: string): string[] => ['bash', '-euo', 'pipefail', '-c', commands];

/** Commands that were left running. */
export interface BackgroundRun {
  output(): string;
  /** The status with which it has ended; undefined while it runs, null where a signal ended it. */
  status(): number | null | undefined;
}

export class DocMachine implements AsyncDisposable {
  readonly #root: string;
  readonly #init: Run;
  readonly #pid: string;
  readonly #running: Run[] = [];

  private constructor(root: string, init: Run, pid: string) {
    this.#root = root;
    this.#init = init;
    this.#pid = pid;
  }

  /** @param root the checkout, where the commands run */
  static async start(root: string): Promise<DocMachine> {
    const spaces = ['--net', '--mount', '--pid', '--fork', '--kill-child', '--mount-proc'];
    const run = collect(spawn('unshare', [...spaces, 'sh', '-c', init(root)], { stdio: ['ignore', 'pipe', 'pipe'] }));
    try {
      await until(run, () => run.output().includes('ready'), 'the machine did not say ready');
      const { pid } = run.child;
      return new DocMachine(root, run, readFileSync(`/proc/${pid}/task/${pid}/children`, 'utf8').trim());
    } catch (error) {
      run.child.kill('SIGKILL');
      throw error;
    }
  }

  /** Runs commands to the end of the last, or the first that fails; resolves to the status and all that was printed. */
  async run(commands: string, timeoutMs: number): Promise<{ readonly status: number | null; readonly output: string }> {
    const run = this.#spawn('ignore', 'timeout', '--kill-after=2', String(timeoutMs / 1000), ...shell(commands));
    const status = await run.ended;
    return { status, output: run.output() };
  }

  /** Starts commands; resolves when they have printed `ready`, or what runs already has since then: it sees who connects. */
  async start(commands: string, ready: string): Promise<BackgroundRun> {
    const others = this.#running.map(({ output }) => ({ output, from: output().length }));
    // Some end with their input: here it stays open, as a terminal does.
    const run = this.#spawn('pipe', ...shell(commands));
    const isSeen = (): boolean => others.some(({ output, from }) => output().includes(ready, from));
    await until(run, () => run.output().includes(ready) || isSeen(), `${commands} did not say ${ready}`);
    this.#running.push(run);
    return run;
  }

  #spawn(input: 'ignore' | 'pipe', ...command: readonly string[]): Run {
    const enter = ['--target', this.#pid, '--net', '--mount', '--pid', 'sh', '-c', 'cd "$0" && exec "$@"', this.#root];
    // Pages say npm start; what it does before, for a fresh checkout, is done, and there is no network here to do it again.
    const env = { ...process.env, TMPDIR: '/tmp', npm_config_ignore_scripts: 'true' };
    return collect(spawn('nsenter', [...enter, ...command], { env, stdio: [input, 'pipe', 'pipe'] }));
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#init.child.kill('SIGKILL');
    await this.#init.ended;
  }
}
