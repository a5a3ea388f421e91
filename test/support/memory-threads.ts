/** What the threads of the tests of pools and rings between threads run. */

import { DmaMemory, type DmaMemoryHandle } from '../../driver/memory/dma-memory.js';
import { PacketField } from '../../driver/memory/packet-fields.js';
import { PacketPool, type PacketPoolHandle } from '../../driver/memory/packet-pool.js';
import { SpscRing } from '../../driver/memory/spsc-ring.js';

export interface ChurnData {
  readonly memory: DmaMemoryHandle;
  readonly pool: PacketPoolHandle;
  /** One word a buffer: the thread that has it, or 0. */
  readonly owners: SharedArrayBuffer;
  readonly thread: number;
  readonly rounds: number;
  readonly seed: number;
}

export interface ChurnResult {
  readonly allocated: number;
  readonly refused: number;
  /** What went wrong, first of all. */
  readonly problem: string | undefined;
}

/** Small and quick pseudo-random numbers (xorshift), the same for the same seed. */
export function randomNumbers(seed: number): (below: number) => number {
  let state = seed | 1;
  return (below) => {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    return (state >>> 0) % below;
  };
}

/** Allocates and frees packets at random, chains of them too, and notes who has which. */
export function churn({
  memory: memoryHandle,
  pool: poolHandle,
  owners,
  thread,
  rounds,
  seed,
}: ChurnData): ChurnResult {
  using memory = DmaMemory.attach(memoryHandle);
  const pool = PacketPool.attach(memory, poolHandle);
  const words = new Int32Array(owners);
  const random = randomNumbers(seed);
  const held = new Uint32Array(1024);
  const segments = new Uint32Array(4);
  let count = 0;
  let allocated = 0;
  let refused = 0;
  let problem: string | undefined;
  const own = (handle: number): void => {
    const before = Atomics.exchange(words, handle, thread);
    if (before !== 0) problem ??= `buffer ${handle} was given to ${thread} while ${before} had it`;
  };
  const disown = (first: number): void => {
    for (let next = first + 1; next !== 0; next = pool.fields[(next - 1) * PacketField.WORDS + PacketField.NEXT]!) {
      if (Atomics.exchange(words, next - 1, 0) !== thread) problem ??= `buffer ${next - 1} is not ${thread}'s to free`;
    }
  };
  for (let round = 0; round < rounds; round++) {
    const wanted = 1 + random(64);
    if (random(2) === 0 && count + wanted <= held.length) {
      if (pool.allocate(held, count, wanted)) {
        for (let index = count; index < count + wanted; index++) own(held[index]!);
        count += wanted;
        allocated += wanted;
      } else refused++;
    } else if (random(4) === 0 && count < held.length && pool.allocate(segments, 0, 4)) {
      for (let segment = 0; segment < 4; segment++) {
        own(segments[segment]!);
        if (segment < 3)
          pool.fields[segments[segment]! * PacketField.WORDS + PacketField.NEXT] = segments[segment + 1]! + 1;
      }
      held[count++] = segments[0]!;
      allocated += 4;
    } else {
      const freed = Math.min(count, wanted);
      for (let index = count - freed; index < count; index++) disown(held[index]!);
      pool.free(held, count - freed, freed);
      count -= freed;
    }
  }
  for (let index = 0; index < count; index++) disown(held[index]!);
  pool.free(held, 0, count);
  pool.flush();
  return { allocated, refused, problem };
}

export interface PassData {
  readonly ring: SharedArrayBuffer;
  readonly values: number;
  readonly seed: number;
}

/** Pushes 0, 1, 2, … in pieces of random sizes. */
export function produce({ ring: memory, values, seed }: PassData): number {
  const ring = new SpscRing(memory);
  const random = randomNumbers(seed);
  const piece = new Uint32Array(64);
  let next = 0;
  while (next < values) {
    const count = Math.min(1 + random(64), values - next);
    for (let index = 0; index < count; index++) piece[index] = (next + index) * SPREAD;
    let done = 0;
    while (done < count) done += ring.push(piece, done, count - done);
    next += count;
  }
  return next;
}

/** Pops as many values; returns how many came in order. */
export function consume({ ring: memory, values, seed }: PassData): number {
  const ring = new SpscRing(memory);
  const random = randomNumbers(seed);
  const piece = new Uint32Array(64);
  let next = 0;
  while (next < values) {
    const count = ring.pop(piece, 0, 1 + random(64));
    for (let index = 0; index < count; index++, next++) {
      if (piece[index] !== (next * SPREAD) >>> 0) return next;
    }
  }
  return next;
}

/** Spreads the values over all 32 bits. */
const SPREAD = 0x9e37_79b1 >>> 8;
