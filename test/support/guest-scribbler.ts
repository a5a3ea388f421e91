/** A thread that rewrites parts of a guest's memory as fast as it can, while a device looks at them. */

import { native } from '../../native/index.js';
import { randomNumbers } from './memory-threads.js';

export interface ScribbleData {
  readonly fd: number;
  readonly fileBytes: number;
  /** Ranges of the file that may be rewritten: offset and length, multiples of 4. */
  readonly ranges: readonly (readonly [offset: number, bytes: number])[];
  /** Values that are written, besides random ones. */
  readonly favourites: readonly number[];
  /** Becomes 1 when it is enough. */
  readonly word: SharedArrayBuffer;
  readonly seed: number;
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
  }
  return written;
}
