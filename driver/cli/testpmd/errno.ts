/** The errno of a failure, for messages that have DPDK's: `Operation not supported`, `diag=-22`. */

import { ErrorCode, isSystemError, VirtioError } from '../../errors.js';

/** Numbers and texts of Linux, as `rte_strerror` gives them. */
export const Errno = {
  EPERM: 1,
  ENOENT: 2,
  EIO: 5,
  EAGAIN: 11,
  ENOMEM: 12,
  EACCES: 13,
  EBUSY: 16,
  EEXIST: 17,
  ENODEV: 19,
  EINVAL: 22,
  ENOSPC: 28,
  ENOSYS: 38,
  ENOTSUP: 95,
  EADDRINUSE: 98,
  ETIMEDOUT: 110,
} as const;
export type Errno = (typeof Errno)[keyof typeof Errno];

const texts: Readonly<Record<Errno, string>> = {
  [Errno.EPERM]: 'Operation not permitted',
  [Errno.ENOENT]: 'No such file or directory',
  [Errno.EIO]: 'Input/output error',
  [Errno.EAGAIN]: 'Resource temporarily unavailable',
  [Errno.ENOMEM]: 'Cannot allocate memory',
  [Errno.EACCES]: 'Permission denied',
  [Errno.EBUSY]: 'Device or resource busy',
  [Errno.EEXIST]: 'File exists',
  [Errno.ENODEV]: 'No such device',
  [Errno.EINVAL]: 'Invalid argument',
  [Errno.ENOSPC]: 'No space left on device',
  [Errno.ENOSYS]: 'Function not implemented',
  [Errno.ENOTSUP]: 'Operation not supported',
  [Errno.EADDRINUSE]: 'Address already in use',
  [Errno.ETIMEDOUT]: 'Connection timed out',
};

const byCode: Partial<Record<ErrorCode, Errno>> = {
  [ErrorCode.INVALID_ARGUMENT]: Errno.EINVAL,
  [ErrorCode.NOT_FOUND]: Errno.ENODEV,
  [ErrorCode.PERMISSION_DENIED]: Errno.EACCES,
  [ErrorCode.IN_USE]: Errno.EBUSY,
  [ErrorCode.NO_RESOURCES]: Errno.ENOMEM,
  [ErrorCode.FEATURE_MISSING]: Errno.ENOTSUP,
  [ErrorCode.UNSUPPORTED]: Errno.ENOTSUP,
  [ErrorCode.REQUEST_REFUSED]: Errno.EIO,
  [ErrorCode.TIMEOUT]: Errno.ETIMEDOUT,
  [ErrorCode.WRONG_STATE]: Errno.EINVAL,
};

/** The errno that stands for a failure, positive. A failure whose `value` is one of `Errno` has said so itself. */
export function errnoOf(error: unknown): Errno {
  if (error instanceof VirtioError) {
    const own = Object.values(Errno).find((errno) => errno === error.value);
    return own ?? byCode[error.code] ?? Errno.EIO;
  }
  if (isSystemError(error)) return Object.values(Errno).find((errno) => errno === Math.abs(error.errno)) ?? Errno.EIO;
  return Errno.EIO;
}

/** `Operation not supported`. */
export const errnoText = (errno: Errno): string => texts[errno];

/** 0, or an errno: what a function of ethdev returns, without its sign. */
export type Result = 0 | Errno;
