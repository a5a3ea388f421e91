/** The processors that this process may run on, as the kernel lists them. */

import { readFileSync } from 'node:fs';
import { cpus } from 'node:os';
import { numbersOf } from './options/lcore-list.js';

export function processors(): readonly number[] {
  const status = readFileSync('/proc/self/status', 'utf8');
  const list = /^Cpus_allowed_list:\s*(\S+)$/m.exec(status)?.[1] ?? '';
  return numbersOf(list) ?? cpus().map((_, cpu) => cpu);
}
