/** Waiting that can time out and be aborted. */

import { ErrorCode, VirtioError } from '../errors.js';

export interface WaitOptions {
  /** Longest time to wait, in milliseconds; without it there is no limit. */
  readonly timeoutMs?: number | undefined;
  readonly signal?: AbortSignal | undefined;
}

/** How a wait ends; the first call counts. */
export interface Settle<T> {
  resolve(value: T): void;
  reject(error: unknown): void;
}

/**
 * Waits for `start` to settle, for `options.timeoutMs` at most, or until `options.signal` is aborted.
 *
 * @param what what is waited for, as errors name it: `an answer to GET_FEATURES`
 * @param start begins the wait; what it returns is called once, however the wait ends
 * @throws VirtioError TIMEOUT, or ABORTED
 */
export function bounded<T>(
  what: string,
  options: WaitOptions,
  start: (settle: Settle<T>) => (() => void) | undefined,
): Promise<T> {
  const { timeoutMs, signal } = options;
  return new Promise<T>((resolve, reject) => {
    if (signal?.aborted) {
      reject(aborted(what, signal));
      return;
    }
    let timer: NodeJS.Timeout | undefined;
    let stop: (() => void) | undefined;
    let isSettled = false;
    const finish = (outcome: () => void): void => {
      if (isSettled) return;
      isSettled = true;
      clearTimeout(timer);
      signal?.removeEventListener('abort', onAbort);
      stop?.();
      outcome();
    };
    const onAbort = (): void => finish(() => reject(aborted(what, signal)));
    signal?.addEventListener('abort', onAbort);
    if (timeoutMs !== undefined) {
      timer = setTimeout(() => finish(() => reject(timedOut(what, timeoutMs))), timeoutMs);
    }
    const stopLater = start({
      resolve: (value) => finish(() => resolve(value)),
      reject: (error) => finish(() => reject(error)),
    });
    if (isSettled) stopLater?.();
    else stop = stopLater;
  });
}

/** Waits `milliseconds`; fails with ABORTED when the signal is. */
export const sleep = (milliseconds: number, signal?: AbortSignal): Promise<void> =>
  bounded('the next attempt', { signal }, ({ resolve }) => {
    const timer = setTimeout(resolve, milliseconds);
    return () => clearTimeout(timer);
  });

function aborted(what: string, signal: AbortSignal | undefined): VirtioError {
  return new VirtioError(ErrorCode.ABORTED, `the wait for ${what} was aborted`, { cause: signal?.reason });
}

function timedOut(what: string, timeoutMs: number): VirtioError {
  return new VirtioError(ErrorCode.TIMEOUT, `${what} did not come within ${timeoutMs} ms`, { value: timeoutMs });
}
