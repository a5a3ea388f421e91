/** The switches of this poll thread, by name: devices that name the same one are its members. */

import type { PacketPool } from '../../memory/packet-pool.js';
import { LearningSwitch, type LearningSwitchOptions } from './learning-switch.js';

/** By pool, for a packet goes from one member to another by its handle. */
const switches = new WeakMap<PacketPool, Map<string, LearningSwitch>>();

/** The switch of this name over this pool; made, with these options, where it is not there yet. */
export function switchNamed(pool: PacketPool, name: string, options: LearningSwitchOptions): LearningSwitch {
  const named = switches.get(pool) ?? new Map<string, LearningSwitch>();
  switches.set(pool, named);
  const found = named.get(name) ?? new LearningSwitch(pool, options);
  named.set(name, found);
  return found;
}

/** Lets go of a switch that has no members any more, and of what it has learned. */
export function releaseSwitch(pool: PacketPool, name: string): void {
  const named = switches.get(pool);
  const found = named?.get(name);
  if (found?.members !== 0) return;
  found.close();
  named?.delete(name);
}
