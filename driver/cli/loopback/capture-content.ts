/** Packets of a capture that is in memory: what the poll thread sends and looks for. */

import type { PacketPool } from '../../thread.js';
import type { PacketContent } from './content.js';

/** A capture in memory that threads share. Packets begin on multiples of 4. */
export interface Capture {
  readonly packets: number;
  readonly largest: number;
  /** Packets of which the capture has less than was on the wire. */
  readonly cutOff: number;
  readonly bytes: SharedArrayBuffer;
  /** Where each packet begins, in words of 4 bytes. */
  readonly starts: Uint32Array;
  readonly lengths: Uint32Array;
  readonly timestampsNs: BigUint64Array;
}

/** Every `queues`-th packet of a capture, again and again. */
export class CaptureContent implements PacketContent {
  readonly #capture: Capture;
  readonly #captureWords: Int32Array;
  readonly #captureBytes: Uint8Array;
  readonly #words: Int32Array;
  readonly #bytes: Uint8Array;
  readonly #queue: number;
  readonly #queues: number;

  constructor(pool: PacketPool, capture: Capture, queue: number, queues: number) {
    this.#capture = capture;
    this.#captureWords = new Int32Array(capture.bytes);
    this.#captureBytes = new Uint8Array(capture.bytes);
    this.#words = new Int32Array(pool.words.buffer);
    this.#bytes = pool.bytes;
    this.#queue = queue;
    this.#queues = queues;
  }

  bytesOf(sequence: number): number {
    return this.#capture.lengths[this.#index(sequence)]!;
  }

  timestampNs(sequence: number): bigint {
    return this.#capture.timestampsNs[this.#index(sequence)]!;
  }

  write(sequence: number, from: number, count: number, at: number): void {
    const source = this.#captureWords;
    const words = this.#words;
    const first = this.#capture.starts[this.#index(sequence)]! + (from >>> 2);
    const to = at >>> 2;
    const length = (count + 3) >>> 2;
    for (let word = 0; word < length; word++) words[to + word] = source[first + word]!;
  }

  difference(sequence: number, from: number, count: number, at: number): number {
    const start = this.#capture.starts[this.#index(sequence)]!;
    let position = from;
    if (((from | at) & 3) === 0) {
      const source = this.#captureWords;
      const words = this.#words;
      const first = start + (from >>> 2);
      const to = at >>> 2;
      const length = count >>> 2;
      let word = 0;
      while (word < length && words[to + word] === source[first + word]) word++;
      position += word << 2;
    }
    const origin = 4 * start;
    for (const end = from + count; position < end; position++) {
      if (this.#bytes[at - from + position] !== this.#captureBytes[origin + position]) return position;
    }
    return -1;
  }

  byteAt(sequence: number, position: number): number {
    return this.#captureBytes[4 * this.#capture.starts[this.#index(sequence)]! + position]!;
  }

  /** Packets of a capture do not say which they are: the nearest of those that begin alike. */
  guess(expected: number, oldest: number, newest: number, at: number, count: number): number {
    const most = Math.max(newest - expected, expected - oldest);
    for (let distance = 1; distance <= most; distance++) {
      if (expected + distance <= newest && this.#beginsAlike(expected + distance, at, count))
        return expected + distance;
      if (expected - distance >= oldest && this.#beginsAlike(expected - distance, at, count))
        return expected - distance;
    }
    return -1;
  }

  #beginsAlike(sequence: number, at: number, count: number): boolean {
    const length = this.bytesOf(sequence);
    return this.difference(sequence, 0, count < length ? count : length, at) < 0;
  }

  #index(sequence: number): number {
    return (this.#queue + sequence * this.#queues) % this.#capture.packets;
  }
}
