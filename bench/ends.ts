/** What the two ends of a pairing have in common, whoever wrote them. */

import type { Cores } from './cores.js';
import type { FrameRun } from './frames.js';
import type { Scenario } from './scenario.js';
import type { TestpmdMemory } from './testpmd.js';

/** The sockets of a host's side with two ports. */
export const socketsOf = (socket: string): readonly string[] => [`${socket}-0`, `${socket}-1`];

/** What an end is started with. */
export interface EndOptions extends Omit<Scenario, 'size'> {
  /** How messages call the process. */
  readonly name: string;
  /** The vhost-user socket: the host's side listens on it. */
  readonly socket: string;
  /** What the host's side sends first, on each queue; none where it only sends back what comes. */
  readonly frames: readonly FrameRun[];
  readonly cores: Cores;
  readonly memory: TestpmdMemory;
}

/** A process that forwards what it receives back to where it came from, with the addresses changed. */
export interface End {
  readonly pid: number;
  /** The end of what the process said, for a message. */
  lastLines(): string;
  freeze(): void;
  thaw(): void;
  /** Ends the process. Idempotent. */
  close(): Promise<void>;
}

export interface GuestEnd extends End {
  /** Begins to forward. Before the host's side begins. */
  begin(): Promise<void>;
}

export interface HostEnd extends End {
  /** Resolves when a driver is connected and ready; to the features it negotiated. */
  connected(): Promise<bigint>;
  /** Sends the first frames, where there are any, and forwards from then on. */
  begin(): Promise<void>;
}

/** A host's side that counts what comes back to it. */
export interface CountingHostEnd extends HostEnd {
  /** Packets a second received from the guest's side over the next `milliseconds`, by the process's own clock. */
  rate(milliseconds: number): Promise<number>;
}
