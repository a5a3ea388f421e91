/** Snapshots of a command that is made up, for tests of what shows them. */

import type { PortSnapshot, QueueSnapshot, Snapshot } from '../../driver/cli/snapshot/snapshot.js';

export const queueSnapshot = (name: string, more: Partial<QueueSnapshot> = {}): QueueSnapshot => ({
  name,
  way: name.startsWith('receiveq') ? 'out' : 'in',
  packets: 0,
  bytes: 0,
  drops: {},
  polls: 0,
  emptyPolls: 0,
  noBuffer: 0,
  ...more,
});

export const portSnapshot = (name: string, queues: readonly QueueSnapshot[]): PortSnapshot => ({
  name,
  kind: 'guest',
  labels: { port: name },
  queues,
});

/** Process 1234, `at` seconds after its start. */
export const snapshotAt = (at: number, ports: readonly PortSnapshot[], more: Partial<Snapshot> = {}): Snapshot => ({
  process: { pid: 1234, command: 'backend', version: '0.1.0', startedAt: 1_700_000_000 },
  at,
  ports,
  threads: [],
  ...more,
});
