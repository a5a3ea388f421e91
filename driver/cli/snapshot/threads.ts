/** Processor time of this process, thread by thread (proc(5), `/proc/PID/task`). */

import { readdirSync, readFileSync } from 'node:fs';
import type { ThreadSnapshot } from './snapshot.js';

const TASKS = '/proc/self/task';
/** USER_HZ, in which the kernel tells times to programs: the same on all architectures of today. */
const TICKS_PER_SECOND = 100;
/** Fields behind the name, by their numbers in proc(5) less three. */
const USER_TIME = 11;
const SYSTEM_TIME = 12;
const PROCESSOR = 36;

/** How poll threads are called (`LcoreOptions.name`): of a device, of a port. */
const POLL_THREAD = /^(device|lcore)/;

/** The main thread first, then the poll threads, then the engine's helpers as one. Empty without /proc. */
export function threadSnapshots(): ThreadSnapshot[] {
  const all = tasks().flatMap((id) => threadOf(id) ?? []);
  const main = all.find(({ id }) => id === process.pid);
  if (main === undefined) return [];
  const polling = all.filter(({ name }) => POLL_THREAD.test(name));
  const others = all.filter((thread) => thread !== main && !polling.includes(thread));
  const cpuSeconds = others.reduce((sum, thread) => sum + thread.cpuSeconds, 0);
  return [{ ...main, name: 'main' }, ...polling, { name: 'others', id: 0, cpuSeconds }];
}

function tasks(): number[] {
  try {
    return readdirSync(TASKS).map(Number);
  } catch {
    return [];
  }
}

/** Undefined when it has ended meanwhile. */
function threadOf(id: number): Required<ThreadSnapshot> | undefined {
  try {
    const text = readFileSync(`${TASKS}/${id}/stat`, 'utf8');
    // The name is in parentheses, and may have some itself.
    const [begin, end] = [text.indexOf('('), text.lastIndexOf(')')];
    const fields = text.slice(end + 2).split(' ');
    const ticks = Number(fields[USER_TIME]) + Number(fields[SYSTEM_TIME]);
    return {
      id,
      name: text.slice(begin + 1, end),
      cpuSeconds: ticks / TICKS_PER_SECOND,
      processor: Number(fields[PROCESSOR]),
    };
  } catch {
    return undefined;
  }
}
