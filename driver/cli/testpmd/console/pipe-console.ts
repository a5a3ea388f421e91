/** The console on a pipe or a file: prompts and echoes as DPDK's, which takes characters as if they were typed. */

import type { Readable } from 'node:stream';
import type { Interpreter } from './interpreter.js';

export const PROMPT = 'testpmd> ';
/** Characters of a line; those behind are not taken (`RDLINE_BUF_SIZE`). */
const LINE_LIMIT = 512;

/** Runs the lines of a stream until it ends or a command quits; what has no line end is echoed and not run. */
export async function servePipe(interpreter: Interpreter, input: Readable, signal: AbortSignal): Promise<void> {
  const { output } = interpreter;
  const end = (): void => {
    input.destroy();
  };
  signal.addEventListener('abort', end, { once: true });
  output.write(PROMPT);
  try {
    for await (const { text, isWhole } of linesOf(input)) {
      output.write(isWhole ? `${text}\r\n` : text);
      if (!isWhole) return;
      await interpreter.run(text, (answer) => output.say(answer));
      if (interpreter.isOver) return;
      output.write(PROMPT);
    }
  } catch (error) {
    if (!signal.aborted) throw error;
  } finally {
    signal.removeEventListener('abort', end);
    input.destroy();
  }
}

/** The lines of a stream; the last one only where something stands behind the last line end. */
async function* linesOf(input: Readable): AsyncGenerator<{ readonly text: string; readonly isWhole: boolean }> {
  let rest = '';
  input.setEncoding('latin1');
  for await (const chunk of input as AsyncIterable<string>) {
    const lines = chunk.split(/[\r\n]/);
    // No more is kept of a line that has not ended than is taken of one that has.
    for (const [index, line] of lines.entries()) {
      rest = printable(rest + line);
      if (index + 1 === lines.length) break;
      yield { text: rest, isWhole: true };
      rest = '';
    }
  }
  if (rest !== '') yield { text: rest, isWhole: false };
}

const printable = (line: string): string => line.replace(/[^\x20-\x7e]/g, '').slice(0, LINE_LIMIT);
