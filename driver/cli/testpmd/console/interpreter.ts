/** Runs one command line after the other. */

import { asVirtioError } from '../../failure.js';
import { Refusal } from '../options/refusal.js';
import type { Output } from '../output.js';
import type { Testpmd } from '../testpmd.js';
import { type Command, parseLine } from './grammar.js';

export class Interpreter {
  readonly commands: readonly Command[];
  readonly #testpmd: Testpmd;

  constructor(commands: readonly Command[], testpmd: Testpmd) {
    this.commands = commands;
    this.#testpmd = testpmd;
  }

  get isOver(): boolean {
    return this.#testpmd.isQuitting;
  }

  /** Takes back that no more commands are wanted. */
  goOn(): void {
    this.#testpmd.isQuitting = false;
  }

  get output(): Output {
    return this.#testpmd.output;
  }

  /**
   * Runs a line; what is no command is answered by `complain`. A failure that the command did not foresee is said, and ends
   * nothing but the command.
   *
   * @throws Refusal where testpmd ends itself
   */
  async run(line: string, complain: (answer: string) => void): Promise<void> {
    const parsed = parseLine(this.commands, line);
    if (parsed === undefined) return;
    if (typeof parsed === 'string') return complain(parsed);
    try {
      await parsed.command.run(this.#testpmd, parsed.args);
    } catch (error) {
      if (error instanceof Refusal) throw error;
      this.output.warn(`virtio-pmd: ${asVirtioError(error).toLine()}`);
    }
  }
}

/**
 * Runs the commands of a file: no prompt, no echo, no answer to what is no command. One that quits ends the file, and the
 * console goes on.
 */
export async function runFile(interpreter: Interpreter, text: string): Promise<void> {
  for (const line of text.split(/[\r\n]/)) {
    await interpreter.run(line, () => undefined);
    if (interpreter.isOver) break;
  }
  interpreter.goOn();
}
