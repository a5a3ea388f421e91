/** Takes snapshots of this process. */

import { packageVersion } from '../version.js';
import type { PortsSource, Snapshot } from './snapshot.js';
import { threadSnapshots } from './threads.js';

/**
 * Returns how to take a snapshot of the command that this process runs.
 *
 * @param command its name
 * @param ports all that it has to tell
 */
export function snapshots(command: string, ports: PortsSource): () => Snapshot {
  const info = {
    pid: process.pid,
    command,
    version: packageVersion(),
    startedAt: performance.timeOrigin / 1000,
  };
  return () => ({ process: info, at: performance.now() / 1000, ports: ports(), threads: threadSnapshots() });
}
