/** Turns failures of the file system into errors of this library. */

import { ErrorCode, isSystemError, VirtioError } from '../errors.js';

const CODES: Readonly<Record<string, ErrorCode>> = {
  ENOENT: ErrorCode.NOT_FOUND,
  ENOTDIR: ErrorCode.NOT_FOUND,
  EACCES: ErrorCode.PERMISSION_DENIED,
  EPERM: ErrorCode.PERMISSION_DENIED,
  EROFS: ErrorCode.PERMISSION_DENIED,
  EISDIR: ErrorCode.WRONG_KIND,
  EMFILE: ErrorCode.NO_RESOURCES,
  ENFILE: ErrorCode.NO_RESOURCES,
};

const REASONS: Readonly<Record<string, string>> = {
  ENOENT: 'there is no such file or folder',
  ENOTDIR: 'a folder on the way is a file',
  EACCES: 'permission denied',
  EPERM: 'permission denied',
  EROFS: 'the file system is read-only',
  EISDIR: 'it is a folder',
  EMFILE: 'too many open files',
  ENFILE: 'too many open files',
  ENOSPC: 'no space left on the disk',
  EDQUOT: 'the disk quota is used up',
  EFBIG: 'the file would be too large',
};

/** What to do where the caller knows nothing better. */
const ADVICE: Readonly<Record<string, string>> = {
  ENOENT: 'check the path',
  ENOTDIR: 'check the path',
  EACCES: 'check the permissions of the file and of its folder',
  EPERM: 'check the permissions of the file and of its folder',
  EROFS: 'choose another place',
  EISDIR: 'name a file',
  EMFILE: 'raise the limit, or close some',
  ENFILE: 'raise the limit, or close some',
};

/** Returns the error for a failed system call: `what failed: why`. */
export function fileError(cause: unknown, what: string, path: string, advice?: string): VirtioError {
  const system = isSystemError(cause) ? cause.code : '';
  const code = CODES[system] ?? ErrorCode.IO;
  const reason = REASONS[system] ?? (cause instanceof Error ? cause.message : String(cause));
  return new VirtioError(code, `${what}: ${reason}`, {
    value: path,
    cause,
    advice: advice ?? ADVICE[system] ?? 'see the cause',
  });
}
