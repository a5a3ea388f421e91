/** The program that tells what the machine itself can do: limit.cc, compiled for one frame size. */

import { execFile } from 'node:child_process';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { promisify } from 'node:util';

import { ErrorCode, VirtioError } from '../driver/errors.js';
import type { Cores } from './cores.js';
import { PeerProcess } from './peer-process.js';
import { takenByOthers } from './processor-time.js';
import { projectRoot } from './project-root.js';
import type { Turn, TurnTimes } from './turn.js';

const COMPILE_MS = 60_000;
const ANSWER_MS = 5000;

/** One running limit program: two threads that use both cores unless they are frozen. */
export class Limit {
  readonly name = 'limit';
  readonly #process: PeerProcess;
  readonly #folder: string;

  private constructor(process: PeerProcess, folder: string) {
    this.#process = process;
    this.#folder = folder;
  }

  /**
   * Compiles limit.cc for frames of `size` bytes into a temporary folder and starts it.
   *
   * @throws VirtioError NOT_FOUND without a compiler, UNSUPPORTED when it does not compile.
   */
  static async start(size: number, cores: Cores): Promise<Limit> {
    const folder = await mkdtemp(join(tmpdir(), 'limit-'));
    try {
      const program = join(folder, 'limit');
      await compile(size, program);
      const command = [program, String(cores.host), String(cores.guest)];
      const limit = new Limit(await PeerProcess.spawn(command, { name: `limit ${size}` }), folder);
      await limit.#process.waitForOutput(/^ready$/m, 0, ANSWER_MS, "'ready'");
      return limit;
    } catch (error) {
      await rm(folder, { recursive: true, force: true });
      throw error;
    }
  }

  /** Measures over the next `milliseconds`, by the program's own clocks. It must not be frozen. */
  async measure(milliseconds: number): Promise<Turn> {
    const from = this.#process.position;
    this.#process.writeLine(`rate ${milliseconds}`);
    const { text } = await this.#process.waitForOutput(/\{.*\}\n/, from, milliseconds + ANSWER_MS, 'a rate');
    const answer = JSON.parse(text) as { packets: number; nanoseconds: number; processorNanoseconds: number };
    return {
      rate: (answer.packets / answer.nanoseconds) * 1e9,
      taken: takenByOthers(answer.nanoseconds, answer.processorNanoseconds, 2),
    };
  }

  /** A turn of its own: thaws it, measures once it has settled, freezes it again. */
  async turn({ settleMs, measureMs }: TurnTimes): Promise<Turn> {
    this.#process.thaw();
    try {
      await sleep(settleMs);
      return await this.measure(measureMs);
    } finally {
      this.freeze();
    }
  }

  freeze(): void {
    this.#process.freeze();
  }

  /** Ends the program and removes it. Idempotent. */
  async close(): Promise<void> {
    await this.#process.end();
    await rm(this.#folder, { recursive: true, force: true });
  }
}

async function compile(size: number, program: string): Promise<void> {
  const source = join(projectRoot, 'bench', 'limit.cc');
  const args = ['-O2', '-std=c++17', '-pthread', `-DFRAME_BYTES=${size}`, '-o', program, source];
  try {
    await promisify(execFile)('g++', args, { timeout: COMPILE_MS });
  } catch (cause) {
    const { code, stderr = '' } = cause as { code?: unknown; stderr?: string };
    if (code === 'ENOENT') {
      throw new VirtioError(ErrorCode.NOT_FOUND, 'g++ is not installed', { advice: 'apt-get install g++', cause });
    }
    throw new VirtioError(ErrorCode.UNSUPPORTED, `limit.cc does not compile: ${stderr.split('\n')[0]}`, { cause });
  }
}
