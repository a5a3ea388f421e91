/** What a vhost-user back-end tells its owner. */

import { ErrorCode, VirtioError } from '../errors.js';
import { caps } from '../spec/caps.js';
import type { FeatureSet } from '../spec/features.js';

/** What came of something that a guest or front-end should not have done, or that is worth a word. */
export type Outcome =
  /** The connection was closed. */
  | 'CLOSE'
  /** The request was refused; the connection goes on where it asked for an acknowledgement. */
  | 'NACK'
  /** One ring stands still until it is stopped and started again. */
  | 'BROKEN'
  /** One packet was dropped. */
  | 'DROP'
  /** It was taken as it is, and things go on; but somebody should know. */
  | 'OK';

/** An event of one connection. */
export type ConnectionEvent =
  | { readonly type: 'features'; readonly features: FeatureSet }
  | { readonly type: 'memory'; readonly regions: number; readonly bytes: bigint }
  | {
      readonly type: 'vring';
      readonly ring: number;
      readonly state: 'started' | 'stopped' | 'enabled' | 'disabled';
      /** Entries. */
      readonly size: number;
    }
  | ErrorEvent;

export interface ErrorEvent {
  readonly type: 'error';
  readonly outcome: Outcome;
  /** The request it was about. */
  readonly request?: string | undefined;
  /** As the device numbers its rings. */
  readonly ring?: number | undefined;
  readonly error: VirtioError;
  /** Events of the same class that came since the last one was reported, and were not. */
  readonly suppressed: number;
}

/** How a session tells of itself. */
export interface SessionListener {
  event(event: ConnectionEvent): void;
  error(outcome: Outcome, error: VirtioError, ring?: number): void;
}

/** An event of a server; `connection` counts from 1. */
export type ServerEvent =
  | { readonly type: 'listening'; readonly path: string }
  /** In the client's role: nobody is there yet. Told once, then again after the next connection. */
  | { readonly type: 'waiting'; readonly path: string; readonly error: VirtioError }
  | { readonly type: 'connected'; readonly connection: number }
  | { readonly type: 'disconnected'; readonly connection: number; readonly reason: string }
  /** Without a connection: about the server itself. */
  | (ConnectionEvent & { readonly connection?: number });

/** Lets one error of each class through in a while, so that a guest cannot flood its host with reports. */
export class ErrorLimiter {
  readonly #classes = new Map<string, { last: number; suppressed: number }>();

  /** How many were held back since the last one that passed; undefined when this one must be held back too. */
  pass(outcome: Outcome, code: string): number | undefined {
    const key = `${outcome} ${code}`;
    const now = performance.now();
    const state = this.#classes.get(key);
    if (state !== undefined && now - state.last < caps.eventIntervalMs) {
      state.suppressed++;
      return undefined;
    }
    this.#classes.set(key, { last: now, suppressed: 0 });
    return state?.suppressed ?? 0;
  }
}

/** What went wrong as an error of this library, whatever threw it. */
export const asVirtioError = (error: unknown): VirtioError =>
  error instanceof VirtioError
    ? error
    : new VirtioError(ErrorCode.DEVICE_BROKEN, `the device failed: ${String(error)}`, { cause: error });
