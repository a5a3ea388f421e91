/** Other programs, as far as /proc shows them to this user. */

import type { System } from './system.js';

export interface Process {
  readonly pid: number;
  /** The name of its program: `qemu-system-x86`. */
  readonly name: string;
  readonly arguments: readonly string[];
}

/** A part of a process' memory. */
export interface Mapping {
  readonly bytes: number;
  readonly isShared: boolean;
  readonly isWritable: boolean;
  /** What tells its file from others; 0 without one. */
  readonly inode: string;
  /** Its file's path, or empty. */
  readonly path: string;
}

export function processes(system: System): Process[] {
  const pids = system.names('/proc').filter((name) => /^\d+$/.test(name));
  return pids.map((pid) => ({
    pid: Number(pid),
    name: system.text(`/proc/${pid}/comm`) ?? '',
    arguments: (system.text(`/proc/${pid}/cmdline`) ?? '').split('\0').filter(Boolean),
  }));
}

/** Processes that have such a file open, or mapped. */
export const holders = (system: System, isSuch: (path: string) => boolean): Process[] =>
  processes(system).filter(
    ({ pid }) =>
      system.names(`/proc/${pid}/fd`).some((fd) => isSuch(system.link(`/proc/${pid}/fd/${fd}`) ?? '')) ||
      mappings(system, pid).some(({ path }) => isSuch(path)),
  );

/** The memory of a process; nothing where this user may not see it. */
export function mappings(system: System, pid: number): Mapping[] {
  const lines = (system.text(`/proc/${pid}/maps`) ?? '').split('\n').filter(Boolean);
  return lines.map((line) => {
    const [range = '', rights = '', , , inode = '0', ...path] = line.split(/\s+/);
    const [start = '0', end = '0'] = range.split('-');
    return {
      bytes: Number(BigInt(`0x${end}`) - BigInt(`0x${start}`)),
      isShared: rights[3] === 's',
      isWritable: rights[1] === 'w',
      inode,
      path: path.join(' '),
    };
  });
}

export const describeProcess = ({ pid, name }: Process): string => `${name === '' ? 'process' : name} ${pid}`;
