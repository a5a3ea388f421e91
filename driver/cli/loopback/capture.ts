/** Packets of a capture file: read once, then sent as they are. */

import { ErrorCode, type PacketPool, PcapReader, VirtioError } from '../../index.js';
import type { PacketContent } from './content.js';
import { LARGEST_PACKET } from './options.js';

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

const ETHERNET_HEADER_BYTES = 14;
/** What is kept in memory at most. */
const CAPTURE_BYTES_MAX = 2 ** 30;
/** Packets between two looks at what else the process has to do. */
const PACKETS_A_TURN = 4096;

/**
 * Reads a whole capture.
 *
 * @throws VirtioError as `PcapReader`; BAD_FORMAT without packets, or with one that no device takes; NO_RESOURCES beyond
 *   1 GiB; ABORTED
 */
export async function loadCapture(path: string, signal: AbortSignal): Promise<Capture> {
  using reader = PcapReader.open(path);
  const lengths: number[] = [];
  const starts: number[] = [];
  const timestamps: bigint[] = [];
  let store = new Uint8Array(new SharedArrayBuffer(2 ** 20));
  let used = 0;
  let cutOff = 0;
  for (const { bytes, originalLength, timestampNs } of reader) {
    if (bytes.length < ETHERNET_HEADER_BYTES || bytes.length > LARGEST_PACKET)
      throw notSendable(path, lengths.length, bytes.length);
    if (used + bytes.length > CAPTURE_BYTES_MAX) throw tooLarge(path);
    if (used + bytes.length > store.length) {
      const larger = new Uint8Array(new SharedArrayBuffer(2 * store.length));
      larger.set(store);
      store = larger;
    }
    store.set(bytes, used);
    starts.push(used >>> 2);
    lengths.push(bytes.length);
    timestamps.push(timestampNs);
    used += (bytes.length + 3) & ~3;
    if (bytes.length < originalLength) cutOff++;
    if (lengths.length % PACKETS_A_TURN === 0) await new Promise(setImmediate);
    if (signal.aborted) throw new VirtioError(ErrorCode.ABORTED, `reading ${path} was aborted`);
  }
  if (lengths.length === 0) {
    throw new VirtioError(ErrorCode.BAD_FORMAT, `${path} holds no packets`, {
      value: path,
      advice: 'capture some first',
    });
  }
  return {
    packets: lengths.length,
    largest: lengths.reduce((largest, length) => Math.max(largest, length)),
    cutOff,
    bytes: store.buffer,
    starts: Uint32Array.from(starts),
    lengths: Uint32Array.from(lengths),
    timestampsNs: BigUint64Array.from(timestamps),
  };
}

const notSendable = (path: string, index: number, length: number): VirtioError =>
  new VirtioError(
    ErrorCode.BAD_FORMAT,
    `${path}: packet ${index + 1} has ${length} bytes, and a network device takes ${ETHERNET_HEADER_BYTES} to ${LARGEST_PACKET}`,
    { value: length, advice: 'leave it out, for instance with editcap' },
  );

const tooLarge = (path: string): VirtioError =>
  new VirtioError(
    ErrorCode.NO_RESOURCES,
    `${path} has more than 1 GiB of packets, and all of them are kept in memory`,
    {
      value: path,
      advice: 'cut it into smaller files, for instance with editcap -c',
    },
  );

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
