/** Failures of a port's device. */

import { ErrorCode, VirtioError } from '../errors.js';

/** The failure as one of this library's. */
export const asFault = (error: unknown): VirtioError =>
  error instanceof VirtioError ? error : new VirtioError(ErrorCode.DEVICE_BROKEN, String(error), { cause: error });

const AWAY: readonly ErrorCode[] = [ErrorCode.PEER_GONE, ErrorCode.WRONG_STATE];
/** Whether a device whose reset failed so cannot reach memory: it is gone, or was given back. */
export const isAway = (error: unknown): boolean => error instanceof VirtioError && AWAY.includes(error.code);

/** Whether the device went away. */
export const isGone = (error: unknown): boolean => error instanceof VirtioError && error.code === ErrorCode.PEER_GONE;

/** The error with what became of the buffers that the device still has. */
export function withQuarantine(error: unknown, buffers: number): VirtioError {
  const { code, message, value, requirement, advice } = asFault(error);
  return new VirtioError(code, `${message}; ${buffers} buffers stay out of the pool, for it may still write to them`, {
    value: value ?? buffers,
    requirement: requirement ?? 'virtio 1.2 §2.4',
    advice: advice ?? 'start the port again: a reset that succeeds gives them back',
    cause: error,
  });
}
