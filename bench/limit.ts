/** The program that tells what the machine itself can do: limit.cc, compiled for one frame size. */

import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { compile } from './compile.js';
import type { Cores } from './cores.js';
import { PeerProcess } from './peer-process.js';
import { takenByOthers } from './processor-time.js';
import type { Probe } from './regime.js';
import type { Contender, Turn, TurnTimes } from './turn.js';

const ANSWER_MS = 5000;

/** One limit program; idle except while it is asked for something. */
export class Limit implements Contender {
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
      await compile('limit.cc', [`-DFRAME_BYTES=${size}`, '-pthread'], program);
      const command = [program, String(cores.host), String(cores.guest)];
      return new Limit(await PeerProcess.spawn(command, { name: `limit ${size}` }), folder);
    } catch (error) {
      await rm(folder, { recursive: true, force: true });
      throw error;
    }
  }

  async turn({ settleMs, measureMs }: TurnTimes): Promise<Turn> {
    const answer = await this.#ask(`rate ${settleMs} ${measureMs}`, settleMs + measureMs + ANSWER_MS);
    const { packets, nanoseconds, processorNanoseconds } = answer as {
      packets: number;
      nanoseconds: number;
      processorNanoseconds: number;
    };
    return { rate: (packets / nanoseconds) * 1e9, taken: takenByOthers(nanoseconds, processorNanoseconds, 2) };
  }

  /** How the two processors are related now; takes about 20 ms. */
  async probe(): Promise<Probe> {
    return (await this.#ask('probe', ANSWER_MS)) as Probe;
  }

  /** Ends the program and removes it. Idempotent. */
  async close(): Promise<void> {
    await this.#process.end();
    await rm(this.#folder, { recursive: true, force: true });
  }

  async #ask(line: string, timeoutMs: number): Promise<unknown> {
    const from = this.#process.position;
    this.#process.writeLine(line);
    const { text } = await this.#process.waitForOutput(/\{.*\}\n/, from, timeoutMs, `an answer to '${line}'`);
    return JSON.parse(text);
  }
}
