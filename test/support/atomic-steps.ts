/** Work that is looked at between its atomic stores. */

/** Runs `work` and calls `step` before and after each atomic store: what a device that is killed leaves behind. */
export function stepping(step: () => void, work: () => void): void {
  const { store } = Atomics;
  Atomics.store = ((array: Uint8Array, index: number, value: number) => {
    step();
    const result = store(array, index, value);
    step();
    return result;
  }) as typeof Atomics.store;
  try {
    work();
  } finally {
    Atomics.store = store;
  }
}
