/** The console on a terminal: lines are edited, completed and remembered; a word that is misspelt is put right. */

import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { homedir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { completions, suggestion } from './completion.js';
import type { Interpreter } from './interpreter.js';
import { PROMPT } from './pipe-console.js';

/** Lines that are remembered from one run to the next. */
const HISTORY_LINES = 500;
const historyFile = (): string => join(homedir(), '.virtio-pmd-testpmd-history');

/** Runs lines until the end of the input (Ctrl-D), a signal, or a command that quits. Ctrl-C gives up a line. */
export async function serveTerminal(interpreter: Interpreter, signal: AbortSignal): Promise<void> {
  const { commands, output } = interpreter;
  const lines = createInterface({
    input: process.stdin,
    output: process.stdout,
    prompt: PROMPT,
    history: readHistory(),
    historySize: HISTORY_LINES,
    removeHistoryDuplicates: true,
    completer: (line: string) => completions(commands, line),
    signal,
  });
  let history: readonly string[] = [];
  lines.on('history', (all) => {
    history = [...all];
  });
  lines.on('SIGINT', () => {
    output.write('\n');
    // Gives up what was typed: a line of its own that nothing runs.
    lines.write(null, { ctrl: true, name: 'u' });
    lines.prompt();
  });
  lines.prompt();
  for await (const line of lines) {
    await runLine(interpreter, line);
    if (interpreter.isOver) break;
    lines.prompt();
  }
  lines.close();
  writeHistory(history);
}

/** Beside the answer, what was probably meant. */
async function runLine(interpreter: Interpreter, line: string): Promise<void> {
  const { commands, output } = interpreter;
  await interpreter.run(line, (answer) => {
    output.say(answer);
    const hint = suggestion(commands, line);
    if (hint !== undefined) output.say(hint);
  });
}

function readHistory(): string[] {
  try {
    return existsSync(historyFile())
      ? readFileSync(historyFile(), 'utf8')
          .split('\n')
          .filter((line) => line !== '')
      : [];
  } catch {
    return [];
  }
}

/** The next run does without it where it cannot be written. */
function writeHistory(history: readonly string[]): void {
  try {
    if (history.length > 0) writeFileSync(historyFile(), `${history.join('\n')}\n`, { mode: 0o600 });
  } catch {
    // A home that cannot be written to is nothing to be told about at the end of a session.
  }
}
