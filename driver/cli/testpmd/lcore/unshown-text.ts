/** Text of the lcores that the control side has not shown yet: bounded, so that a reader who stands still costs no memory. */

/** Characters of all lcores together. */
const MOST_CHARACTERS = 4 << 20;

export class UnshownText {
  /** What another thread makes the same from. */
  readonly handle: SharedArrayBuffer;
  readonly #characters: Int32Array;

  constructor(handle = new SharedArrayBuffer(Int32Array.BYTES_PER_ELEMENT)) {
    this.handle = handle;
    this.#characters = new Int32Array(handle);
  }

  get isFull(): boolean {
    return Atomics.load(this.#characters, 0) >= MOST_CHARACTERS;
  }

  /** On an lcore: `text` is on its way. */
  add(text: string): void {
    Atomics.add(this.#characters, 0, text.length);
  }

  /** On the control side: it was shown. */
  remove(text: string): void {
    Atomics.sub(this.#characters, 0, text.length);
  }
}

/** Sends text as far as there is room for it, and says how often there was none; complaints always go. */
export class BoundedPrint {
  readonly #unshown: UnshownText;
  readonly #send: (text: string, isError: boolean) => void;
  #skipped = 0;

  constructor(unshown: UnshownText, send: (text: string, isError: boolean) => void) {
    this.#unshown = unshown;
    this.#send = send;
  }

  print(text: string, isError = false): void {
    if (!isError && this.#unshown.isFull) {
      this.#skipped++;
      return;
    }
    this.tellSkipped();
    this.#add(text, isError);
  }

  /** Says how many texts found no room since it was said last, if any. */
  tellSkipped(): void {
    if (this.#skipped === 0) return;
    const skipped = this.#skipped;
    this.#skipped = 0;
    this.#add(`${skipped} texts were not shown: nobody read them in time\n`, true);
  }

  #add(text: string, isError: boolean): void {
    this.#unshown.add(text);
    this.#send(text, isError);
  }
}
