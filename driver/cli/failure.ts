/** How the command line fails: one line on standard error, and an exit status that says whose fault it was. */

import { debuglog } from 'node:util';
import { ErrorCode, isSystemError, VirtioError } from '../errors.js';

export const ExitStatus = {
  SUCCESS: 0,
  /** Something failed while it ran. */
  FAILURE: 1,
  /** The command line itself was wrong: nothing was tried. */
  USAGE: 2,
} as const;

const debug = debuglog('virtio-pmd');

/** Any failure as an error of this library. */
export function asVirtioError(error: unknown): VirtioError {
  if (error instanceof VirtioError) return error;
  if (isSystemError(error)) return new VirtioError(ErrorCode.IO, error.message, { cause: error });
  const message = error instanceof Error ? error.message : String(error);
  return new VirtioError(ErrorCode.WRONG_STATE, `unexpected: ${message}`, {
    cause: error,
    advice: 'this is a bug; run it again with NODE_DEBUG=virtio-pmd and report what it prints',
  });
}

/** An option or argument that can never work. */
export const wrongUsage = (message: string, command: string): VirtioError =>
  new VirtioError(ErrorCode.INVALID_ARGUMENT, message, { advice: `see ${command} --help` });

/** Prints `virtio-pmd: CODE: what is wrong (what to do)`. */
export function printError(error: VirtioError): void {
  process.stderr.write(`virtio-pmd: ${error.toLine()}\n`);
  debug('%o', error.cause ?? error);
}

/** The exit status that goes with an error. */
export const statusOf = (error: VirtioError): number =>
  error.code === ErrorCode.INVALID_ARGUMENT ? ExitStatus.USAGE : ExitStatus.FAILURE;
