/** What control side and lcores say to each other; all of it plain data. */

import type { DmaMemory, PacketPool } from '../../../index.js';
import type { ForwardSettings } from './forward-settings.js';
import type { StreamSetup } from './stream.js';

/** What an lcore is started with. */
export interface LcoreStart {
  readonly lcore: number;
  readonly memory: DmaMemory['handle'];
  readonly pool: PacketPool['handle'];
  /** Of the `UnshownText` of all lcores. */
  readonly unshown: SharedArrayBuffer;
}

/** A module of a port, or of an observer: its address, and what it is given. */
export interface ModuleOrder {
  readonly port: number;
  readonly module: string;
  readonly data: unknown;
}

/** Something that a port's control side asks. */
export interface PortRequest {
  readonly port: number;
  readonly type: string;
  readonly payload: unknown;
}

/** A receive queue whose packets are thrown away. */
export interface QueueToFlush {
  readonly port: number;
  readonly queue: number;
}

export interface ForwardOrder {
  readonly streams: readonly { readonly setup: StreamSetup; readonly counters: SharedArrayBuffer }[];
  readonly settings: ForwardSettings;
}

/** The requests that an lcore answers. */
export const LcoreRequestType = {
  /** `ModuleOrder`: puts a port on the lcore. */
  ATTACH: 'attach',
  /** The port's number. */
  DETACH: 'detach',
  /** `PortRequest`. */
  PORT: 'port',
  /** `ModuleOrder`: has an observer look on at a port's queues from now on, in the place of another. */
  OBSERVE: 'observe',
  /** The port's number. */
  UNOBSERVE: 'unobserve',
  /** `QueueToFlush[]`. */
  FLUSH: 'flush',
  /** `ForwardOrder`: forwards from now on, in the place of what it forwarded before. */
  FORWARD: 'forward',
  /** `ForwardOrder`: sends one burst of `txonly` on each stream. */
  TRANSMIT_FIRST: 'transmit-first',
  HALT: 'halt',
} as const;

/** What an lcore says by itself. */
export type LcoreEvent =
  | { readonly type: 'port'; readonly port: number; readonly event: unknown }
  | { readonly type: 'print'; readonly text: string; readonly isError: boolean };
