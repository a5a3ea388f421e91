/** What tests may change on a machine and must put back: hugepages, network namespaces, interfaces, shared files. */

import { spawnSync } from 'node:child_process';
import { existsSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { join } from 'node:path';

const HUGEPAGES = '/sys/kernel/mm/hugepages';
/** Folders where a name that stays is a leftover. */
const NAME_FOLDERS = [
  { kind: 'network namespace', folder: '/run/netns', remove: ['ip', 'netns', 'delete'] },
  { kind: 'network interface', folder: '/sys/class/net', remove: ['ip', 'link', 'delete'] },
  { kind: 'hugepage file', folder: '/dev/hugepages', remove: undefined },
  { kind: 'shared memory file', folder: '/dev/shm', remove: undefined },
] as const;

export interface MachineState {
  /** Reserved hugepages by pool (`hugepages-2048kB`). */
  readonly hugepages: ReadonlyMap<string, number>;
  /** What is there, as `network namespace vm1`. */
  readonly names: ReadonlySet<string>;
}

const list = (folder: string): string[] => (existsSync(folder) ? readdirSync(folder) : []);

/** Returns the state as it is now. */
export function machineState(): MachineState {
  const pools = list(HUGEPAGES).map(
    (pool) => [pool, Number(readFileSync(join(HUGEPAGES, pool, 'nr_hugepages'), 'utf8'))] as const,
  );
  const names = NAME_FOLDERS.flatMap(({ kind, folder }) => list(folder).map((name) => `${kind} ${name}`));
  return { hugepages: new Map(pools), names: new Set(names) };
}

/** Which changes count. */
export interface Scope {
  /**
   * What the name of a leftover must contain; undefined: any. Other programs on a person's machine come and go as
   * they like, so only a machine that is there for the tests alone is held to the latter.
   */
  readonly mine: string | undefined;
  /** Whether the numbers of reserved hugepages count: they bear no name. */
  readonly hugepages: boolean;
}

/** Says what differs, a line each. */
export function stateChanges(before: MachineState, after: MachineState, { mine, hugepages }: Scope): string[] {
  const changes: string[] = [];
  for (const [pool, pages] of hugepages ? before.hugepages : []) {
    const now = after.hugepages.get(pool);
    if (now !== pages) changes.push(`${pool}: ${pages} pages reserved before, ${now ?? 'none'} after`);
  }
  for (const name of after.names) {
    if (!before.names.has(name) && (mine === undefined || name.includes(mine))) changes.push(`left behind: ${name}`);
  }
  return changes;
}

/** Removes everything whose name contains `mine`, the id of a test file that has ended. */
export function removeLeftovers(mine: string): void {
  for (const { folder, remove } of NAME_FOLDERS) {
    for (const name of list(folder).filter((candidate) => candidate.includes(mine))) {
      if (remove === undefined) rmSync(join(folder, name), { recursive: true, force: true });
      else spawnSync(remove[0], [...remove.slice(1), name], { stdio: 'ignore' });
    }
  }
}
