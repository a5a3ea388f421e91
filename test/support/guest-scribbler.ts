/** A thread that rewrites parts of a guest's memory as fast as it can, while a device looks at them. */

import { setTimeout as delay } from 'node:timers/promises';
import { native } from '../../native/index.js';
import { randomNumbers } from './memory-threads.js';
import { onThread } from './thread.js';

interface ScribbleData {
  readonly fd: number;
  readonly fileBytes: number;
  /** Ranges of the file that may be rewritten: offset and length, multiples of 4. */
  readonly ranges: readonly (readonly [offset: number, bytes: number])[];
  /** Values that are written, besides random ones. */
  readonly favourites: readonly number[];
  /** Two words: the second becomes 1 when it is at it, the first when it is enough. */
  readonly word: SharedArrayBuffer;
  readonly seed: number;
}

/** Starts the thread; resolves, when it has rewritten a thousand words, to how to end it, which resolves to how many it was. */
export async function startScribbling(data: Omit<ScribbleData, 'word'>): Promise<() => Promise<number>> {
  const word = new SharedArrayBuffer(8);
  const words = new Int32Array(word);
  const written = onThread<number>(new URL('./guest-scribbler.js', import.meta.url), 'scribble', { ...data, word });
  while (Atomics.load(words, 1) === 0) await delay(1);
  return () => {
    Atomics.store(words, 0, 1);
    return written;
  };
}

/** Returns how many words were written. */
export function scribble({ fd, fileBytes, ranges, favourites, word, seed }: ScribbleData): number {
  const words = new Uint32Array(native.mapShared(fd, 0, fileBytes, 0));
  const stop = new Int32Array(word);
  const random = randomNumbers(seed);
  let written = 0;
  while (Atomics.load(stop, 0) === 0) {
    for (let turn = 0; turn < 1000; turn++, written++) {
      const [offset, bytes] = ranges[random(ranges.length)]!;
      const at = (offset + 4 * random(bytes / 4)) / 4;
      words[at] = random(4) === 0 ? random(0xffff_ffff) : favourites[random(favourites.length)]!;
    }
    Atomics.store(stop, 1, 1);
  }
  return written;
}
