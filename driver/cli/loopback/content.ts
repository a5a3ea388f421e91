/** What packets are made of: the one interface over patterns and captures. */

/**
 * The packets of one queue, by their number in it, from 0 on.
 *
 * Positions are bytes from the start of a packet; `at` is an offset in the pool's memory. Nothing here allocates.
 */
export interface PacketContent {
  /** Length of a packet. */
  bytesOf(sequence: number): number;
  /** Writes bytes `from` to `from + count - 1` of a packet; `from` and `at` are multiples of 4, and so is the room there. */
  write(sequence: number, from: number, count: number, at: number): void;
  /** Returns the first position from `from` on where `count` bytes at `at` are not the packet's, or -1. */
  difference(sequence: number, from: number, count: number, at: number): number;
  /** What a byte of a packet should be. */
  byteAt(sequence: number, position: number): number;
  /**
   * Returns which packet other than `expected` the one at `at` may be: a number from `oldest` to `newest`, or -1. A guess:
   * the caller compares.
   */
  guess(expected: number, oldest: number, newest: number, at: number, count: number): number;
  /** When a packet was there first; of those alone that come from a capture. */
  timestampNs?(sequence: number): bigint;
}
