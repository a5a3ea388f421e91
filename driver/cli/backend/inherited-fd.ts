/** Looks at a descriptor that another program handed over: `--fd`. */

import { readFileSync, readlinkSync } from 'node:fs';
import { ErrorCode, isSystemError, VirtioError } from '../../errors.js';

/** Columns of /proc/net/unix, and what they hold of a socket that takes connections (proc(5)). */
const FLAGS = 3;
const TYPE = 4;
const INODE = 6;
const ACCEPTS_CONNECTIONS = 0x10000;
const STREAM = 1;

/**
 * Finds a descriptor that is no connected stream socket.
 *
 * The conventions do not say whether the socket is connected or listens; who starts a back-end this way (libvirt) hands
 * over one end of a pair.
 *
 * @throws VirtioError NOT_FOUND, WRONG_KIND
 */
export function checkFd(fd: number): void {
  const wrong = (what: string, code: ErrorCode = ErrorCode.WRONG_KIND): VirtioError =>
    new VirtioError(code, `--fd: descriptor ${fd} ${what}`, {
      value: fd,
      requirement: 'vhost-user "Back-end program conventions"',
      advice: 'hand over a connected unix stream socket, or use --socket-path',
    });
  let target: string;
  try {
    target = readlinkSync(`/proc/self/fd/${fd}`);
  } catch (error) {
    if (isSystemError(error, 'ENOENT')) throw wrong('is not open', ErrorCode.NOT_FOUND);
    throw error;
  }
  const inode = /^socket:\[(\d+)\]$/.exec(target)?.[1];
  if (inode === undefined) throw wrong(`is ${target}, not a socket`);
  const row = readFileSync('/proc/net/unix', 'latin1')
    .split('\n')
    .map((line) => line.trim().split(/\s+/))
    .find((columns) => columns[INODE] === inode);
  // One of another network namespace is not listed: it is tried as it is.
  if (row === undefined) return;
  if (Number.parseInt(row[TYPE] ?? '', 16) !== STREAM) throw wrong('is not a stream socket');
  if ((Number.parseInt(row[FLAGS] ?? '', 16) & ACCEPTS_CONNECTIONS) !== 0) throw wrong('listens, and is not connected');
}
