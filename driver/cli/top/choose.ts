/** Which process is meant where none was named. */

import { ErrorCode, VirtioError } from '../../errors.js';
import type { RunningProcess } from '../control/processes.js';
import { wrongUsage } from '../failure.js';
import { elapsed } from './figures.js';
import type { Line } from './render.js';
import { hasScreen, Screen } from './screen.js';
import { fit, printable } from './text.js';

/** One that was started so long ago, as a line. */
export const processText = ({ pid, command, startedAt, socket }: RunningProcess): string => {
  const since = elapsed(Math.max(Date.now() / 1000 - startedAt, 0));
  return `${String(pid).padStart(8)}  ${fit(printable(command), 10)}  ${since.padStart(10)}  ${printable(socket)}`;
};

export const PROCESS_HEADER = `${'PID'.padStart(8)}  ${'COMMAND'.padEnd(10)}  ${'RUNS FOR'.padStart(10)}  SOCKET`;

/**
 * The only one, or the one that is chosen on the terminal; undefined when none is chosen after all.
 *
 * @throws VirtioError NOT_FOUND where none runs, INVALID_ARGUMENT where there are several and nobody to ask
 */
export async function chooseProcess(
  running: readonly RunningProcess[],
  signal: AbortSignal,
): Promise<RunningProcess | undefined> {
  const [first, ...more] = running;
  if (first === undefined) {
    throw new VirtioError(ErrorCode.NOT_FOUND, 'no command of virtio-pmd runs that this user could look at', {
      advice: 'start one, such as virtio-pmd backend, or look at traffic of its own with --loopback',
    });
  }
  if (more.length === 0) return first;
  if (!hasScreen() || !process.stdin.isTTY) {
    const known = running.map(({ pid, command }) => `${pid} (${command})`).join(', ');
    throw wrongUsage(`say which process: ${known}`, 'virtio-pmd top');
  }
  return await ask(running, signal);
}

function ask(running: readonly RunningProcess[], signal: AbortSignal): Promise<RunningProcess | undefined> {
  let at = 0;
  return new Promise((resolve) => {
    const end = (chosen: RunningProcess | undefined): void => {
      signal.removeEventListener('abort', onAbort);
      screen.close();
      resolve(chosen);
    };
    const onAbort = (): void => end(undefined);
    const draw = (): void => screen.draw(choiceLines(running, at, screen.size));
    const take = (key: string): void => {
      const named = /^[1-9]$/.test(key) ? running[Number(key) - 1] : undefined;
      if (key === 'q' || key === 'escape') end(undefined);
      else if (key === 'return' || key === 'enter') end(running[at]);
      else if (named !== undefined) end(named);
      else move(key === 'up' || key === 'k' ? -1 : key === 'down' || key === 'j' ? 1 : 0);
    };
    const move = (by: number): void => {
      at = Math.min(Math.max(at + by, 0), running.length - 1);
      draw();
    };
    const screen = new Screen({ key: take, redraw: draw });
    signal.addEventListener('abort', onAbort);
    draw();
  });
}

/** What the terminal shows meanwhile: the one that `at` is at stands out. */
export function choiceLines(
  running: readonly RunningProcess[],
  at: number,
  { columns, rows }: { readonly columns: number; readonly rows: number },
): Line[] {
  const room = Math.max(rows - 5, 1);
  const from = Math.max(Math.min(at - Math.floor(room / 2), running.length - room), 0);
  const lines: Line[] = [
    { text: 'virtio-pmd top: which process?', style: 'title' },
    { text: '' },
    { text: `    ${PROCESS_HEADER}` },
    ...running.slice(from, from + room).map((each, index): Line => {
      const number = from + index;
      const text = ` ${number < 9 ? `${number + 1}.` : '  '} ${processText(each)}`;
      return number === at ? { text, style: 'header' } : { text };
    }),
    { text: '' },
    { text: 'up down choose   return show it   1-9 show that one   q quit', style: 'hint' },
  ];
  return lines.map((line) => ({ ...line, text: fit(line.text, columns).trimEnd() }));
}
