/** Connecting again and again, with growing pauses. */

import { ErrorCode, VirtioError } from '../errors.js';
import { sleep } from './bounded.js';
import type { OwnedFd } from './owned-fd.js';
import { connectUnix } from './unix-endpoint.js';

/** The first pause, and the longest. */
const FIRST_PAUSE_MS = 50;
const LONGEST_PAUSE_MS = 1000;

/** Pauses between attempts: doubled each time, and each cut short at random so that many clients do not come at once. */
export class BackOff {
  #pause = FIRST_PAUSE_MS;

  /** Waits before the next attempt. @throws VirtioError ABORTED */
  async wait(signal?: AbortSignal): Promise<void> {
    const pause = this.#pause * (0.5 + Math.random() / 2);
    this.#pause = Math.min(this.#pause * 2, LONGEST_PAUSE_MS);
    await sleep(pause, signal);
  }

  /** After a success: the next pause is the shortest again. */
  reset(): void {
    this.#pause = FIRST_PAUSE_MS;
  }
}

/**
 * Connects to the socket at `path` as soon as somebody listens there.
 *
 * @param onFailure called for every attempt that failed
 * @throws VirtioError INVALID_ARGUMENT for a path that can never work; ABORTED
 */
export async function connectUntilThere(
  path: string,
  backOff: BackOff,
  signal: AbortSignal | undefined,
  onFailure: (error: VirtioError) => void = () => {},
): Promise<OwnedFd> {
  for (;;) {
    try {
      return connectUnix(path);
    } catch (error) {
      if (!(error instanceof VirtioError) || error.code === ErrorCode.INVALID_ARGUMENT) throw error;
      onFailure(error);
    }
    await backOff.wait(signal);
  }
}
