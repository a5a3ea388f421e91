/** Steps of letting go, which are all done, whatever fails. */

/** Runs every step; then throws what the first that failed threw. */
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
