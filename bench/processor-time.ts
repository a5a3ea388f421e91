/** Processor time of processes, to tell whether a turn was theirs alone. */

import { readdirSync, readFileSync } from 'node:fs';

/** USER_HZ, which is 100 on every architecture that Node runs on. */
const NANOSECONDS_PER_TICK = 10_000_000;

/**
 * Nanoseconds of processor time that the processes have had, all threads together.
 *
 * A process that is gone counts as 0.
 */
export function processorTime(pids: readonly number[]): number {
  return pids.reduce((sum, pid) => sum + timeOf(pid), 0);
}

function timeOf(pid: number): number {
  try {
    return readdirSync(`/proc/${pid}/task`).reduce(
      (sum, thread) => sum + timeOfThread(`/proc/${pid}/task/${thread}`),
      0,
    );
  } catch {
    return 0;
  }
}

function timeOfThread(folder: string): number {
  try {
    return nanosecondsOf(readFileSync(`${folder}/schedstat`, 'utf8'));
  } catch {
    // A kernel without scheduler statistics counts in ticks only; a thread that ended meanwhile throws here too.
    return ticksOf(readFileSync(`${folder}/stat`, 'utf8')) * NANOSECONDS_PER_TICK;
  }
}

/** Time on the processor in a `schedstat` file: its first number. */
export const nanosecondsOf = (schedstat: string): number => Number(schedstat.split(' ')[0]);

/** User and system time in a `stat` file: fields 14 and 15, counted after the name, which may hold anything. */
export function ticksOf(stat: string): number {
  const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
  return Number(fields[11]) + Number(fields[12]);
}

/**
 * The share of one core that others took in a turn of `elapsed` ns, where ours had `used` ns on `cores` cores that
 * they never leave by themselves: 0 when they took nothing.
 */
export const takenByOthers = (elapsed: number, used: number, cores: number): number =>
  elapsed <= 0 ? 0 : Math.max(0, (elapsed * cores - used) / elapsed);
