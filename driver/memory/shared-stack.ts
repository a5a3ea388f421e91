/** A stack of numbers that several threads share, behind a spin lock: touched once per hundreds of packets. */

const LOCK = 0;
const COUNT = 1;
const FIRST = 2;

/**
 * Fixed capacity, any number of threads. Last in, first out: what was used last is still in a cache.
 *
 * The lock is held for one bulk copy; a thread that is terminated inside would leave it held, so
 * workers are stopped, never terminated, while they use a pool.
 */
export class SharedStack {
  readonly memory: SharedArrayBuffer;
  readonly #words: Int32Array;

  constructor(memory: SharedArrayBuffer) {
    this.memory = memory;
    this.#words = new Int32Array(memory);
  }

  /** Memory for a stack of up to `capacity` numbers, empty. */
  static create(capacity: number): SharedArrayBuffer {
    return new SharedArrayBuffer((FIRST + capacity) * 4);
  }

  /** Numbers on the stack at this moment. */
  get count(): number {
    return Atomics.load(this.#words, COUNT);
  }

  pushOne(value: number): void {
    const words = this.#words;
    this.#lock();
    words[FIRST + words[COUNT]!] = value;
    words[COUNT]! += 1;
    this.#unlock();
  }

  /** Pushes `count` numbers of `values` from `start` on. The caller keeps within the capacity. */
  push(values: Uint32Array, start: number, count: number): void {
    if (count === 0) return;
    const words = this.#words;
    this.#lock();
    const top = words[COUNT]!;
    for (let index = 0; index < count; index++) words[FIRST + top + index] = values[start + index]!;
    words[COUNT] = top + count;
    this.#unlock();
  }

  /** Pops up to `most` numbers into `out` from `start` on; returns how many. */
  pop(out: Uint32Array, start: number, most: number): number {
    const words = this.#words;
    this.#lock();
    const top = words[COUNT]!;
    const count = Math.min(top, most);
    for (let index = 0; index < count; index++) out[start + index] = words[FIRST + top - 1 - index]!;
    words[COUNT] = top - count;
    this.#unlock();
    return count;
  }

  #lock(): void {
    // Acquire: what the last holder wrote is visible behind the exchange. A waiter sleeps at most a millisecond at
    // a time, for the holder may have lost its processor.
    while (Atomics.compareExchange(this.#words, LOCK, 0, 1) !== 0) Atomics.wait(this.#words, LOCK, 1, 1);
  }

  #unlock(): void {
    Atomics.store(this.#words, LOCK, 0);
    Atomics.notify(this.#words, LOCK, 1);
  }
}
