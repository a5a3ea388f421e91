/** Both ends of a loopback run, as a snapshot has them. */

import { ringName } from '../backend/ring-name.js';
import { devicePortSnapshot } from '../snapshot/device-port.js';
import { driverPortSnapshot } from '../snapshot/driver-port.js';
import type { PortSnapshot, Snapshot } from '../snapshot/snapshot.js';
import { snapshots } from '../snapshot/take-snapshot.js';
import type { Stand } from './stand.js';

const DRIVER = 'driver';
const BACKEND = 'back-end';

/** Returns how to take a snapshot of a run with so many queue pairs. */
export const loopbackSnapshots = (stand: Stand, queues: number): (() => Snapshot) =>
  snapshots('loopback', () => [driverPortSnapshot(stand.port, DRIVER), ...deviceSnapshots(stand, queues)]);

/** The back-end's end, where it is the bundled one. What its rings hold, the driver's end tells. */
function deviceSnapshots(stand: Stand, queues: number): PortSnapshot[] {
  const device = stand.device();
  if (device === undefined) return [];
  const rings = Array.from({ length: 2 * queues }, (_, ring) => ({
    queue: ringName(ring, queues),
    ...device.statistics(ring),
  }));
  return [devicePortSnapshot(BACKEND, { port: BACKEND }, rings)];
}
