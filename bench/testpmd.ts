/** A real `dpdk-testpmd` process in interactive mode, driven like a person would. */

import { readFileSync } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { ErrorCode, VirtioError } from 'virtio-pmd';
import { findProgram, PeerProcess, type ProcessEnd } from './peer-process.js';
import { type PortInfo, type PortStats, parsePortInfo, parsePortStats } from './testpmd-output.js';

/** Where testpmd's memory comes from: 2 MiB pages, or ordinary ones. */
export type TestpmdMemory = 'hugepages' | 'no-huge';

/** The Debian package that dpdk-testpmd is in. */
export const TESTPMD_PACKAGE = 'dpdk-dev';

const HUGEPAGES_FREE = '/sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages';
/** Pages of 2 MiB that one testpmd with its usual packet pool takes (185), with a margin. */
export const TESTPMD_HUGEPAGES = 208;
const START_MS = 30_000;
const COMMAND_MS = 10_000;
const PROMPT = 'testpmd> ';
/** The prompt with nothing typed after it. */
const PROMPT_AGAIN = /testpmd> $/m;

export interface TestpmdOptions {
  /** How messages call it; letters, digits and dashes. */
  readonly name: string;
  /** `--vdev` arguments, e.g. `net_vhost0,iface=/tmp/s,queues=1`. */
  readonly vdevs: readonly string[];
  /** EAL's `-l`; one more than the forwarding cores. Default `0-1`. */
  readonly lcores?: string;
  /** The core of the command line, which sleeps; the others forward. Default 0. */
  readonly mainLcore?: number;
  /** Default: hugepages when enough are free, else ordinary pages. */
  readonly memory?: TestpmdMemory;
  /** More arguments for EAL, e.g. `--log-level=pmd.net.virtio.*:info`. */
  readonly eal?: readonly string[];
  /** Arguments for testpmd itself, e.g. `--txd=1024`. */
  readonly parameters?: readonly string[];
  /** Another program that takes testpmd's command line. Default `dpdk-testpmd`. */
  readonly program?: readonly string[];
}

/** Whether dpdk-testpmd is installed. */
export const testpmdIsInstalled = (): boolean => findProgram('dpdk-testpmd') !== undefined;

/** Hugepages of 2 MiB that nobody uses. */
export function freeHugepages(): number {
  try {
    return Number(readFileSync(HUGEPAGES_FREE, 'utf8'));
  } catch {
    return 0; // A kernel without hugepages of this size.
  }
}

let started = 0;

/**
 * One testpmd.
 *
 * Its port numbers, spelling and output are the installed version's. Nothing of it is left behind after `close`: its
 * runtime files are in a folder of its own. When the program that started it ends, it ends.
 */
export class Testpmd {
  readonly memory: TestpmdMemory;
  readonly #process: PeerProcess;
  readonly #folder: string;
  /** Runs after the commands that were given before. */
  #queue: Promise<unknown> = Promise.resolve();

  private constructor(process: PeerProcess, folder: string, memory: TestpmdMemory) {
    this.#process = process;
    this.#folder = folder;
    this.memory = memory;
  }

  /**
   * Starts testpmd and resolves when it asks for commands.
   *
   * @throws VirtioError NOT_FOUND when it is not installed, NO_RESOURCES when it gets no memory, PEER_GONE when it
   * ends for another reason, TIMEOUT.
   */
  static async start(options: TestpmdOptions): Promise<Testpmd> {
    const program = options.program ?? ['dpdk-testpmd'];
    if (findProgram(program[0]!) === undefined) {
      throw new VirtioError(ErrorCode.NOT_FOUND, `${program[0]} is not installed`, {
        value: program[0],
        advice: `apt-get install ${TESTPMD_PACKAGE}`,
      });
    }
    const memory = options.memory ?? (freeHugepages() >= TESTPMD_HUGEPAGES ? 'hugepages' : 'no-huge');
    const folder = await mkdtemp(join(tmpdir(), 'testpmd-'));
    try {
      const command = [...unbuffered(), ...program, ...testpmdArguments(options, memory, started++)];
      const process = await PeerProcess.spawn(command, {
        name: options.name,
        environment: { RUNTIME_DIRECTORY: folder, XDG_RUNTIME_DIR: folder },
      });
      const testpmd = new Testpmd(process, folder, memory);
      await testpmd.#awaitPrompt().catch(async (error) => {
        await testpmd.close();
        throw startError(error, process.log, memory);
      });
      return testpmd;
    } catch (error) {
      await rm(folder, { recursive: true, force: true });
      throw error;
    }
  }

  get name(): string {
    return this.#process.name;
  }

  get pid(): number {
    return this.#process.pid;
  }

  /** Everything it has printed, EAL's and the drivers' log among it. */
  get log(): string {
    return this.#process.log;
  }

  /** The end of the log on one line, for a message. */
  lastLines(): string {
    return this.#process.lastLines();
  }

  get hasEnded(): boolean {
    return this.#process.hasEnded;
  }

  /** Resolves when the process has ended. */
  get ended(): Promise<ProcessEnd> {
    return this.#process.ended;
  }

  /**
   * Runs a command and resolves to what testpmd printed for it, without the echo and the next prompt.
   *
   * Commands given while one runs wait for it. A refusal of testpmd's own (`Bad arguments`) is output like any other.
   *
   * @throws VirtioError TIMEOUT or PEER_GONE.
   */
  command(text: string, { timeoutMs = COMMAND_MS }: { timeoutMs?: number } = {}): Promise<string> {
    const run = async () => {
      const from = this.#process.position;
      this.#process.writeLine(text);
      const { text: answer } = await this.#process.waitForOutput(PROMPT_AGAIN, from, timeoutMs, `the end of '${text}'`);
      return withoutEcho(answer.slice(0, -PROMPT.length), text);
    };
    const result = this.#queue.then(run);
    this.#queue = result.catch(() => {});
    return result;
  }

  /** The statistics of all ports; rates are since the call before. */
  async portStats(): Promise<PortStats[]> {
    return parsePortStats(await this.command('show port stats all'));
  }

  /** What testpmd tells of all ports. */
  async portInfo(): Promise<PortInfo[]> {
    return parsePortInfo(await this.command('show port info all'));
  }

  /** Resolves to the first match in the log, old or new. */
  waitForLog(pattern: RegExp, { timeoutMs = COMMAND_MS }: { timeoutMs?: number } = {}): Promise<RegExpExecArray> {
    return this.#process.waitForLog(pattern, timeoutMs);
  }

  /** Stops the process where it stands, until `thaw`. */
  freeze(): void {
    this.#process.freeze();
  }

  thaw(): void {
    this.#process.thaw();
  }

  /** Quits testpmd, kills it when it does not listen, and removes its runtime files. Idempotent. */
  async close(): Promise<void> {
    await this.#process.end(() => this.#process.writeLine('quit'));
    await rm(this.#folder, { recursive: true, force: true });
  }

  /** Kills testpmd at once, as a crash would; `close` is still due. */
  kill(): void {
    this.#process.kill();
  }

  async #awaitPrompt(): Promise<void> {
    await this.#process.waitForOutput(PROMPT_AGAIN, 0, START_MS, 'its prompt');
  }
}

/** C programs keep what they print to a pipe until 4 KiB are full; an answer must come when it is printed. */
function unbuffered(): string[] {
  const stdbuf = findProgram('stdbuf');
  return stdbuf === undefined ? [] : [stdbuf, '--output=0'];
}

/** The whole command line after the program's name. */
export function testpmdArguments(options: TestpmdOptions, memory: TestpmdMemory, number: number): string[] {
  const memoryArguments =
    memory === 'hugepages' ? ['--in-memory', '--single-file-segments'] : ['--no-huge', '-m', '1024'];
  return [
    ...['-l', options.lcores ?? '0-1', '--main-lcore', String(options.mainLcore ?? 0)],
    ...['--no-pci', '--no-telemetry', '--file-prefix', `${options.name}-${process.pid}-${number}`],
    ...memoryArguments,
    ...(options.eal ?? []),
    ...options.vdevs.flatMap((vdev) => ['--vdev', vdev]),
    ...['--', '-i', '--no-mlockall'],
    ...(options.parameters ?? []),
  ];
}

/** `answer` without the command that testpmd repeats in it, with ordinary line ends. */
function withoutEcho(answer: string, command: string): string {
  return answer.replaceAll('\r\n', '\n').replace(`${command}\n`, () => '');
}

/** The failure of a start, with what testpmd said of it where it did. */
function startError(error: unknown, log: string, memory: TestpmdMemory): unknown {
  const reason = /Cause: (.*)/.exec(log)?.[1] ?? /EAL: FATAL: (.*)/.exec(log)?.[1];
  const memoryIsShort = /Cannot allocate memory|not enough memory|hugepage|Cannot init memory/i.test(reason ?? '');
  if (!memoryIsShort) return error;
  const advice =
    memory === 'hugepages'
      ? `raise /proc/sys/vm/nr_hugepages by ${TESTPMD_HUGEPAGES}, or use ordinary pages`
      : 'free some memory: it needs 1 GiB';
  return new VirtioError(ErrorCode.NO_RESOURCES, `dpdk-testpmd gets no memory: ${reason}`, { advice, cause: error });
}
