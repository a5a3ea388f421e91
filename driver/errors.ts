/** The one error class of the library, and the closed set of its codes. */

/** Every code an error of this library can carry, with what it means. */
export const ErrorCode = {
  /** An argument or option has a value that can never work. */
  INVALID_ARGUMENT: 'INVALID_ARGUMENT',
  /** A path, device or peer that was named does not exist. */
  NOT_FOUND: 'NOT_FOUND',
  /** The operating system refused access. */
  PERMISSION_DENIED: 'PERMISSION_DENIED',
  /** Something exists but is not what was asked for (a file where a socket was expected). */
  WRONG_KIND: 'WRONG_KIND',
  /** The address, device or socket is taken by somebody else. */
  IN_USE: 'IN_USE',
  /** Memory, hugepages, locked memory or descriptors ran out. */
  NO_RESOURCES: 'NO_RESOURCES',
  /** A feature that was demanded is not offered by the other side. */
  FEATURE_MISSING: 'FEATURE_MISSING',
  /** The driver and the device could not agree (FEATURES_OK did not stick). */
  NEGOTIATION_FAILED: 'NEGOTIATION_FAILED',
  /** The peer broke the vhost-user protocol. */
  PROTOCOL_VIOLATION: 'PROTOCOL_VIOLATION',
  /** The peer answered a request with a refusal. */
  REQUEST_REFUSED: 'REQUEST_REFUSED',
  /** The peer broke the rules of a ring. */
  RING_BROKEN: 'RING_BROKEN',
  /** The device is not what the specification says, or asks for a reset. */
  DEVICE_BROKEN: 'DEVICE_BROKEN',
  /** An address of the guest has no translation yet; `value` is the IOVA (bigint) to ask for. */
  NO_TRANSLATION: 'NO_TRANSLATION',
  /** The other side went away. */
  PEER_GONE: 'PEER_GONE',
  /** Something did not happen in time. */
  TIMEOUT: 'TIMEOUT',
  /** The object was closed, stopped or not started. */
  WRONG_STATE: 'WRONG_STATE',
  /** Input that should be in a known format is not. */
  BAD_FORMAT: 'BAD_FORMAT',
  /** Reading or writing failed (disk full, I/O error). */
  IO: 'IO',
  /** What came back is not what was sent. */
  VERIFICATION_FAILED: 'VERIFICATION_FAILED',
  /** The operation was aborted by the caller. */
  ABORTED: 'ABORTED',
  /** Not possible on this machine or in this build. */
  UNSUPPORTED: 'UNSUPPORTED',
} as const;
export type ErrorCode = (typeof ErrorCode)[keyof typeof ErrorCode];

/** What an error says beside its message. */
export interface ErrorDetails {
  /** The offending value, as it came in. */
  readonly value?: unknown;
  /** The requirement that was broken, e.g. `virtio 1.2 §3.1.1`. */
  readonly requirement?: string;
  /** What to do next, an imperative phrase. */
  readonly advice?: string;
  /** The failure below this one, with Node's fields (`code`, `errno`, `syscall`, `path`). */
  readonly cause?: unknown;
}

/**
 * An error of this library.
 *
 * `message` says what was wrong, `advice` what to do about it; `toLine()` gives both in one line.
 */
export class VirtioError extends Error {
  override readonly name = 'VirtioError';
  readonly code: ErrorCode;
  readonly value: unknown;
  readonly requirement: string | undefined;
  readonly advice: string | undefined;

  constructor(code: ErrorCode, message: string, details: ErrorDetails = {}) {
    super(message, details.cause === undefined ? undefined : { cause: details.cause });
    this.code = code;
    this.value = details.value;
    this.requirement = details.requirement;
    this.advice = details.advice;
  }

  /** The error as one line, `CODE: what is wrong (what to do)`, without line breaks. */
  toLine(): string {
    const advice = this.advice === undefined ? '' : ` (${this.advice})`;
    return `${this.code}: ${this.message}${advice}`.replace(/\s*\n\s*/g, ' ');
  }
}

/** The fields that Node puts on a failed system call. */
export interface SystemError extends Error {
  readonly code: string;
  readonly errno: number;
  readonly syscall: string;
}

/** Whether `error` is a failed system call, of the given `code` (`ENOENT`, …) when one is named. */
export function isSystemError(error: unknown, code?: string): error is SystemError {
  return error instanceof Error && 'syscall' in error && 'code' in error && (code === undefined || error.code === code);
}

/** Runs every step of letting go, whatever fails; then throws what the first that failed threw. */
export function allOf(steps: readonly (() => void)[]): void {
  const failures: unknown[] = [];
  for (const step of steps) {
    try {
      step();
    } catch (error) {
      failures.push(error);
    }
  }
  if (failures.length > 0) throw failures[0];
}
