/** Calls of code that is not ours, in the middle of work that must be done. */

/** Calls; what it throws is thrown where nothing of ours is under way, as an exception that nobody caught. */
export function isolated(call: () => unknown): void {
  try {
    call();
  } catch (error) {
    queueMicrotask(() => {
      throw error;
    });
  }
}
