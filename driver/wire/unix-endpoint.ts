/** Unix sockets by path: connecting to one, and listening on one. */

import { type BigIntStats, existsSync, linkSync, lstatSync, renameSync, rmSync, statSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { native, PollEvent } from '../../native/index.js';
import { ErrorCode, isSystemError, VirtioError } from '../errors.js';
import { caps } from '../spec/caps.js';
import { bounded, type Settle, sleep, type WaitOptions } from './bounded.js';
import { OwnedFd } from './owned-fd.js';

/** Connections that may wait to be accepted. */
const BACKLOG = 128;
/** Pause after an accept that failed for want of descriptors, so that the waiting connection does not spin the loop. */
const ACCEPT_PAUSE_MS = 100;

/** @throws VirtioError INVALID_ARGUMENT for a path that no socket can have */
export function checkSocketPath(path: string): void {
  const bytes = Buffer.byteLength(path);
  if (bytes > caps.socketPathBytes) {
    throw new VirtioError(
      ErrorCode.INVALID_ARGUMENT,
      `a socket's path has ${caps.socketPathBytes} bytes at most, this one has ${bytes}: ${path}`,
      { value: path, requirement: 'unix(7)', advice: 'choose a shorter one, such as under /run or /tmp' },
    );
  }
  if (bytes === 0 || path.includes('\0')) {
    throw new VirtioError(ErrorCode.INVALID_ARGUMENT, 'a socket needs a path without zero bytes', { value: path });
  }
}

/**
 * Connects to the socket at `path`; a unix socket connects at once or fails.
 *
 * @throws VirtioError INVALID_ARGUMENT, NOT_FOUND (no such path, or nobody listens), WRONG_KIND, PERMISSION_DENIED,
 * NO_RESOURCES, IO
 */
export function connectUnix(path: string): OwnedFd {
  checkSocketPath(path);
  try {
    return new OwnedFd(native.connectUnix(path));
  } catch (error) {
    throw socketError(error, path, 'connect to');
  }
}

/** Listens at a path, and removes its socket file when it is closed. */
export class UnixListener {
  readonly path: string;
  readonly #socket: OwnedFd;
  readonly #file: BigIntStats;
  #waiting: Settle<void> | undefined;

  private constructor(path: string, socket: OwnedFd, file: BigIntStats) {
    this.path = path;
    this.#socket = socket;
    this.#file = file;
  }

  /**
   * Listens at `path`. A socket file there that nobody listens on is replaced.
   *
   * @throws VirtioError INVALID_ARGUMENT, IN_USE (somebody listens), WRONG_KIND (something else is there), NOT_FOUND (no
   * such directory), PERMISSION_DENIED, NO_RESOURCES, IO
   */
  static listen(path: string): UnixListener {
    checkSocketPath(path);
    for (let attempt = 0; ; attempt++) {
      try {
        const socket = new OwnedFd(native.listenUnix(path, BACKLOG));
        return new UnixListener(path, socket, lstatSync(path, { bigint: true }));
      } catch (error) {
        if (!isSystemError(error, 'EADDRINUSE') || attempt > 0) throw socketError(error, path, 'listen on');
        removeStale(path);
      }
    }
  }

  get isClosed(): boolean {
    return !this.#socket.isOpen;
  }

  /**
   * The next connection. One wait at a time.
   *
   * @throws VirtioError TIMEOUT, ABORTED, or WRONG_STATE once the listener is closed
   */
  async accept(options: WaitOptions = {}): Promise<OwnedFd> {
    for (;;) {
      try {
        const fd = native.acceptUnix(this.#socket.fd);
        if (fd >= 0) return new OwnedFd(fd);
      } catch (error) {
        if (!isSystemError(error)) throw error;
        // ECONNABORTED and the like are about a connection that is gone; EMFILE and ENFILE pass when others close.
        await sleep(ACCEPT_PAUSE_MS, options.signal);
        continue;
      }
      await this.#waitForConnection(options);
    }
  }

  #waitForConnection(options: WaitOptions): Promise<void> {
    return bounded(`a connection on ${this.path}`, options, (settle) => {
      this.#waiting = settle;
      const poll = native.pollFd(this.#socket.fd, PollEvent.READABLE, () => settle.resolve());
      return () => {
        this.#waiting = undefined;
        poll.close();
      };
    });
  }

  /** Stops listening and removes the socket file, if it is still this listener's. Idempotent. */
  close(): void {
    if (this.isClosed) return;
    this.#waiting?.reject(new VirtioError(ErrorCode.WRONG_STATE, `${this.path} is not listened on any more`));
    this.#socket.close();
    if (isSameFile(this.path, this.#file)) rmSync(this.path, { force: true });
  }

  [Symbol.dispose](): void {
    this.close();
  }
}

/**
 * Removes a socket file that nobody listens on.
 *
 * Another process may do the same at this moment and listen at once. So the file is moved aside first, which only one of
 * the two can do to the same file, and put back if it turns out to be another than the one that was tried.
 */
function removeStale(path: string): void {
  const file = lstatSync(path, { bigint: true });
  if (!file.isSocket()) throw wrongKind(path);
  try {
    new OwnedFd(native.connectUnix(path)).close();
    throw inUse(path);
  } catch (error) {
    if (!isSystemError(error, 'ECONNREFUSED'))
      throw isSystemError(error) ? socketError(error, path, 'listen on') : error;
  }
  const aside = join(dirname(path), `.${process.pid}.${process.hrtime.bigint()}.stale`);
  try {
    renameSync(path, aside);
    if (!isSameFile(aside, file)) {
      if (!existsSync(path)) linkSync(aside, path);
      throw inUse(path);
    }
  } catch (error) {
    // Gone: somebody else moved it aside, and listens before us or not.
    if (!isSystemError(error, 'ENOENT')) throw isSystemError(error) ? socketError(error, path, 'replace') : error;
  } finally {
    rmSync(aside, { force: true });
  }
}

/** Whether `path` is still the file that `file` describes; a new one may get the old one's number, but not its time. */
function isSameFile(path: string, file: BigIntStats): boolean {
  const now = lstatSync(path, { bigint: true, throwIfNoEntry: false });
  return now !== undefined && now.dev === file.dev && now.ino === file.ino && now.mtimeNs === file.mtimeNs;
}

const wrongKind = (path: string): VirtioError =>
  new VirtioError(ErrorCode.WRONG_KIND, `${path} is not a socket`, { value: path, advice: 'name a socket' });

const inUse = (path: string): VirtioError =>
  new VirtioError(ErrorCode.IN_USE, `somebody listens on ${path} already`, {
    value: path,
    advice: 'stop the other program, or choose another path',
  });

/** A failed system call on the socket at `path`, as people understand it. */
function socketError(error: unknown, path: string, action: string): unknown {
  if (!isSystemError(error)) return error;
  const fail = (code: ErrorCode, message: string, advice: string): VirtioError =>
    new VirtioError(code, message, { value: path, advice, cause: error });
  switch (error.code) {
    case 'ENOENT':
    case 'ENOTDIR':
      return action === 'connect to'
        ? fail(ErrorCode.NOT_FOUND, `there is no socket ${path}`, 'start the other side first, or check the path')
        : fail(ErrorCode.NOT_FOUND, `there is no directory ${dirname(path)}`, 'create it, or check the path');
    case 'ECONNREFUSED':
      // The kernel says the same of a file that is no socket.
      return statSync(path, { throwIfNoEntry: false })?.isSocket() === false
        ? wrongKind(path)
        : fail(ErrorCode.NOT_FOUND, `nobody listens on ${path}`, 'start the other side first');
    case 'ENOTSOCK':
    case 'EPROTOTYPE':
      return wrongKind(path);
    case 'EACCES':
    case 'EPERM':
    case 'EROFS':
      return fail(
        ErrorCode.PERMISSION_DENIED,
        `not allowed to ${action} ${path}`,
        'check the permissions of the socket and of its directory',
      );
    case 'EADDRINUSE':
      return inUse(path);
    case 'EAGAIN':
      return fail(ErrorCode.NO_RESOURCES, `too many connections wait on ${path}`, 'try again later');
    case 'EMFILE':
    case 'ENFILE':
    case 'ENOMEM':
    case 'ENOBUFS':
    case 'ENOSPC':
      return fail(
        ErrorCode.NO_RESOURCES,
        `could not ${action} ${path}: ${error.message}`,
        'raise the limit, or free some',
      );
    default:
      return fail(ErrorCode.IO, `could not ${action} ${path}: ${error.message}`, 'see the cause');
  }
}
