/** Finds the processes that a test file left behind. */

import { readdirSync, readFileSync } from 'node:fs';

import { TEST_ID_VARIABLE } from './test-names.js';

export interface LeftProcess {
  readonly pid: number;
  /** Its command line, words parted by spaces. */
  readonly command: string;
}

/** Process group and state of a process, from /proc/PID/stat; the name in parentheses may hold anything. */
function groupAndState(stat: string): { readonly group: number; readonly state: string } {
  const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
  return { state: fields[0] ?? '', group: Number(fields[2]) };
}

/**
 * Returns the processes that are in process group `group`, or that inherited the test's id: a process that made
 * itself a daemon has left the group, but keeps its environment. Ended ones that nobody waited for don't count.
 */
export function processesOf(group: number, testId: string): LeftProcess[] {
  const found: LeftProcess[] = [];
  for (const name of readdirSync('/proc')) {
    const pid = Number(name);
    if (!Number.isInteger(pid) || pid === process.pid) continue;
    try {
      const status = groupAndState(readFileSync(`/proc/${pid}/stat`, 'latin1'));
      if (status.state === 'Z' || status.state === 'X') continue;
      const variables = readFileSync(`/proc/${pid}/environ`, 'latin1').split('\0');
      const inherited = variables.find((text) => text.startsWith(`${TEST_ID_VARIABLE}=`));
      if (status.group !== group && inherited?.includes(testId) !== true) continue;
      found.push({ pid, command: readFileSync(`/proc/${pid}/cmdline`, 'latin1').replaceAll('\0', ' ').trim() });
    } catch {
      // It ended while we looked, or belongs to another user.
    }
  }
  return found;
}

/** Sends a signal to a process or, negative, a group; one that is gone is none to worry about. */
export function sendSignal(pid: number, signal: NodeJS.Signals): void {
  try {
    process.kill(pid, signal);
  } catch {
    // Gone already.
  }
}
