/** What the two ends of a pairing have in common, whoever wrote them. */

import type { Cores } from './cores.js';
import type { RingPath } from './paths.js';
import type { TestpmdMemory } from './testpmd.js';

/** Entries of every ring, and frames in flight: as in DPDK's own loop-back plan. */
export const RING_SIZE = 1024;

/** The sockets of a host's side with two ports. */
export const socketsOf = (socket: string): readonly string[] => [`${socket}-0`, `${socket}-1`];

/** What an end is started with. */
export interface EndOptions {
  /** How messages call the process. */
  readonly name: string;
  /** The vhost-user socket: the host's side listens on it. */
  readonly socket: string;
  readonly path: RingPath;
  /** Length of the frames in bytes, without the checksum at their end. */
  readonly size: number;
  readonly cores: Cores;
  /** Whether the other end is DPDK's. */
  readonly facesDpdk: boolean;
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
  /** Sends the first frames, 1024 of them, and forwards from then on. */
  begin(): Promise<void>;
  /** Packets a second received from the guest's side over the next `milliseconds`, by the process's own clock. */
  rate(milliseconds: number): Promise<number>;
}
