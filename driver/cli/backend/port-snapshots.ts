/** The connections of the daemon, as a snapshot has them. */

import { devicePortSnapshot } from '../snapshot/device-port.js';
import type { PortSnapshot, Snapshot } from '../snapshot/snapshot.js';
import { snapshots } from '../snapshot/take-snapshot.js';
import type { Connection } from './connections.js';
import { ringCounters } from './statistics.js';

/** What each connection is called in metrics. */
export const CONNECTION_LABELS = ['socket', 'connection'] as const;

/** Returns how to take a snapshot of the daemon. */
export const backendSnapshots = (source: { readonly connections: readonly Connection[] }): (() => Snapshot) =>
  snapshots('backend', () => portSnapshots(source.connections));

const portSnapshots = (connections: readonly Connection[]): PortSnapshot[] =>
  connections.map((connection) => {
    const { number, socket } = connection;
    const labels = { socket, connection: number } satisfies Record<(typeof CONNECTION_LABELS)[number], unknown>;
    return devicePortSnapshot(`${number}: ${socket}`, labels, ringCounters(connection), connection.describe()?.rings);
  });
