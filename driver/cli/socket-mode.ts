/** Socket files with the permissions that they are to have. */

/**
 * Calls `listen`, which makes a socket file, such that the file has these permissions from its first moment on.
 *
 * `listen` makes it before it first waits.
 */
export function withSocketMode<T>(mode: number | undefined, listen: () => T): T {
  if (mode === undefined) return listen();
  // A socket is bound with all permissions but those of the mask (unix(7)); setting them later leaves a gap.
  const before = process.umask(0o777 & ~mode);
  try {
    return listen();
  } finally {
    process.umask(before);
  }
}
