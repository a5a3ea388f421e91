/** Who runs this: user, groups, capabilities and limits, as /proc/self has them (proc(5), capabilities(7)). */

import type { FileState, System } from './system.js';

/** Capabilities by number. */
export const Capability = { IPC_LOCK: 14, SYS_RAWIO: 17, SYS_ADMIN: 21, DAC_OVERRIDE: 1 } as const;
export type Capability = (typeof Capability)[keyof typeof Capability];

const capabilityNames = {
  1: 'CAP_DAC_OVERRIDE',
  14: 'CAP_IPC_LOCK',
  17: 'CAP_SYS_RAWIO',
  21: 'CAP_SYS_ADMIN',
} as const;
export const capabilityName = (capability: Capability): string => capabilityNames[capability];

export class User {
  readonly uid: number;
  readonly #groups: readonly number[];
  readonly #capabilities: bigint;
  /** Bytes that it may lock; Infinity without a limit. */
  readonly memlockBytes: number;

  constructor(system: System) {
    const status = system.text('/proc/self/status') ?? '';
    const numbers = (name: string): number[] =>
      (new RegExp(`^${name}:[ \\t]*(.*)$`, 'm').exec(status)?.[1] ?? '').split(/\s+/).filter(Boolean).map(Number);
    // Real, effective, saved, file system: the last is asked for files, and follows the second.
    this.uid = numbers('Uid')[1] ?? Number.NaN;
    this.#groups = [...numbers('Groups'), ...numbers('Gid').slice(1, 2)];
    this.#capabilities = BigInt(`0x${/^CapEff:\s*([0-9a-f]+)$/m.exec(status)?.[1] ?? '0'}`);
    const limit = /^Max locked memory\s+(\S+)/m.exec(system.text('/proc/self/limits') ?? '')?.[1];
    this.memlockBytes = limit === undefined || limit === 'unlimited' ? Number.POSITIVE_INFINITY : Number(limit);
  }

  can(capability: Capability): boolean {
    return ((this.#capabilities >> BigInt(capability)) & 1n) === 1n;
  }

  /** Whether it may do with a file what `wanted` says: bits of 4 read, 2 write, 1 execute. */
  mayUse(file: FileState, wanted: number): boolean {
    if (this.can(Capability.DAC_OVERRIDE)) return true;
    const shift = file.uid === this.uid ? 6 : this.#groups.includes(file.gid) ? 3 : 0;
    return ((file.mode >> shift) & wanted) === wanted;
  }
}
