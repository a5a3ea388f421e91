/** What can be the path of a socket. */

import { ErrorCode, VirtioError } from '../../errors.js';
import { caps } from '../../spec/caps.js';

/** Node's own sockets take a longer one for its beginning. @throws VirtioError INVALID_ARGUMENT */
export function checkSocketPath(path: string): void {
  const bytes = Buffer.byteLength(path);
  if (bytes <= caps.socketPathBytes) return;
  throw new VirtioError(
    ErrorCode.INVALID_ARGUMENT,
    `a socket's path has ${caps.socketPathBytes} bytes at most, this one has ${bytes}`,
    { value: path, requirement: 'unix(7)', advice: 'use a shorter one' },
  );
}
