/** A slice of DMA memory cut into fixed buffers, with the fields of the packets in them. */

import { ErrorCode, VirtioError } from '../errors.js';
import { highWord, KiB, lowWord } from '../units.js';
import type { DmaMemory } from './dma-memory.js';
import { type EthernetRewriter, ethernetRewriter } from './ethernet-rewriter.js';
import { type FreeList, freeList } from './free-list.js';
import { PacketField } from './packet-fields.js';
import { SharedStack } from './shared-stack.js';

export interface PacketPoolOptions {
  /** Buffers in the pool. */
  readonly size: number;
  /** Bytes of a buffer, headroom included; a multiple of 64. */
  readonly bufferBytes?: number;
  /** Bytes kept free before the data of a new packet: room for the virtio header and for tunnels. */
  readonly headroom?: number;
}

/** What another thread needs to use the same pool; the memory comes beside it. */
export interface PacketPoolHandle {
  readonly size: number;
  readonly bufferBytes: number;
  readonly headroom: number;
  readonly offset: number;
  readonly fields: SharedArrayBuffer;
  readonly stack: SharedArrayBuffer;
}

/**
 * An odd number of cache lines: with 2048 bytes the first lines of all buffers would fall into two sets of a processor's
 * cache, and a burst of 32 would not stay in it (measured: 94 against 66 ns a packet over both ends).
 */
export const DEFAULT_BUFFER_BYTES = 35 * 64;
/**
 * Two cache lines, and the usual header of 12 bytes: the header begins a line, and header and first bytes of a packet
 * share it. One line less moves between the processors of driver and device for each packet, each way.
 */
export const DEFAULT_HEADROOM = 128 + 12;
// Module constants: an imported object's fields are loads in compiled code, these are immediates.
const { DATA_OFFSET, SEGMENT_LENGTH, NEXT, PACKET_LENGTH, WORDS, WORDS_SHIFT } = PacketField;

/**
 * Packet buffers, allocated and freed by handle.
 *
 * One object a thread: each has its own cache over the shared stack, so that the common case takes no lock.
 * The public arrays are for packet paths: index them by handle, stay inside the buffer.
 */
export class PacketPool {
  /** The memory that the buffers are in. */
  readonly memory: DmaMemory;
  readonly size: number;
  readonly bufferBytes: number;
  readonly headroom: number;
  /** Offset of buffer 0 in the memory. */
  readonly offset: number;
  /** Fields of all packets: word `handle * PacketField.WORDS + field`. */
  readonly fields: Uint32Array;
  /** The whole memory, by width; buffer `h` begins at byte `offset + h * bufferBytes`. */
  readonly bytes: Uint8Array;
  readonly halfWords: Uint16Array;
  readonly words: Uint32Array;
  /** The device's address of each buffer: low word at `2 * handle`, high word at `2 * handle + 1`. */
  readonly iovas: Uint32Array;
  readonly #stack: SharedStack;
  /** The free buffers, for those who take and give back where they use them. */
  readonly freeList: FreeList;
  #ethernet: EthernetRewriter | undefined;
  readonly #one = new Uint32Array(1);
  /** As `allocate`, for callers that set DATA_OFFSET, SEGMENT_LENGTH and PACKET_LENGTH themselves. */
  readonly take: FreeList['take'];
  /** Gives back packets with all their segments. */
  readonly free: FreeList['free'];
  /** Gives back single buffers that have no NEXT and no FLAGS. */
  readonly freeBuffers: FreeList['freeBuffers'];

  private constructor(memory: DmaMemory, handle: PacketPoolHandle) {
    this.memory = memory;
    this.size = handle.size;
    this.bufferBytes = handle.bufferBytes;
    this.headroom = handle.headroom;
    this.offset = handle.offset;
    this.fields = new Uint32Array(handle.fields);
    this.bytes = new Uint8Array(memory.buffer);
    this.halfWords = new Uint16Array(memory.buffer);
    this.words = new Uint32Array(memory.buffer);
    this.iovas = new Uint32Array(2 * handle.size);
    for (let number = 0; number < handle.size; number++) {
      const address = memory.iovas.at(handle.offset + number * handle.bufferBytes);
      this.iovas[number << 1] = lowWord(address);
      this.iovas[(number << 1) + 1] = highWord(address);
    }
    this.#stack = new SharedStack(handle.stack);
    this.freeList = freeList(this.fields, this.#stack);
    this.take = this.freeList.take;
    this.free = this.freeList.free;
    this.freeBuffers = this.freeList.freeBuffers;
  }

  /** Bytes of memory that a pool of these options takes. */
  static bytesNeeded(options: PacketPoolOptions): number {
    return options.size * (options.bufferBytes ?? DEFAULT_BUFFER_BYTES);
  }

  /**
   * Cuts a new pool from `memory`; every buffer is free.
   *
   * @throws VirtioError INVALID_ARGUMENT for a size that cannot work, NO_RESOURCES when the memory is too small
   */
  static create(memory: DmaMemory, options: PacketPoolOptions): PacketPool {
    const { size, bufferBytes = DEFAULT_BUFFER_BYTES, headroom = DEFAULT_HEADROOM } = options;
    if (!Number.isInteger(size) || size < 1) throw invalid('a pool needs at least one buffer', size);
    if (!Number.isInteger(bufferBytes) || bufferBytes % 64 !== 0 || bufferBytes > 64 * KiB) {
      throw invalid('a buffer is a multiple of 64 bytes, 64 KiB at most', bufferBytes);
    }
    if (!Number.isInteger(headroom) || headroom % 4 !== 0 || headroom < 32 || headroom + 64 > bufferBytes) {
      throw invalid('the headroom is a multiple of 4, at least 32, and leaves 64 bytes of a buffer', headroom);
    }
    const offset = memory.take(size * bufferBytes, Math.max(64, Math.min(bufferBytes, 4 * KiB)));
    const fields = new SharedArrayBuffer(size * WORDS * 4);
    const stack = SharedStack.create(size);
    const pool = new PacketPool(memory, { size, bufferBytes, headroom, offset, fields, stack });
    for (let number = 0; number < size; number++) {
      // Packet paths add offsets to the low word alone, so a buffer neither leaves its run of addresses nor its 4 GiB.
      const at = offset + number * bufferBytes;
      const wraps = lowWord(memory.iovas.at(at)) + bufferBytes > 0x1_0000_0000;
      if (!wraps && memory.iovas.isContiguous(at, bufferBytes)) pool.#stack.pushOne(number);
    }
    return pool;
  }

  /** The same pool in another thread, whose mapping of the memory is `memory`. */
  static attach(memory: DmaMemory, handle: PacketPoolHandle): PacketPool {
    return new PacketPool(memory, handle);
  }

  /** Rewrites Ethernet addresses; behind `swapMacs` and `macForward`. */
  get ethernet(): EthernetRewriter {
    this.#ethernet ??= ethernetRewriter(this);
    return this.#ethernet;
  }

  get handle(): PacketPoolHandle {
    return {
      size: this.size,
      bufferBytes: this.bufferBytes,
      headroom: this.headroom,
      offset: this.offset,
      fields: this.fields.buffer as SharedArrayBuffer,
      stack: this.#stack.memory,
    };
  }

  /** Most bytes of data one buffer takes behind the headroom. */
  get dataBytes(): number {
    return this.bufferBytes - this.headroom;
  }

  /** The high word of every buffer's address where they are all alike, else -1. */
  get commonHighWord(): number {
    const { iovas } = this;
    const high = iovas[1]!;
    for (let handle = 1; handle < this.size; handle++) if (iovas[(handle << 1) + 1] !== high) return -1;
    return high;
  }

  /** Free buffers, caches of other threads not counted. */
  get available(): number {
    return this.freeList.cached + this.#stack.count;
  }

  /** Gives one packet back, with all of its segments: where none comes in a list. */
  freeOne(handle: number): void {
    this.#one[0] = handle;
    this.free(this.#one, 0, 1);
  }

  /**
   * Takes `count` new packets into `out` from `start` on; all of them or none.
   *
   * The packets are empty: no data, one segment, no flags. Returns whether there were enough.
   */
  allocate(out: Uint32Array, start: number, count: number): boolean {
    if (!this.take(out, start, count)) return false;
    const { fields, headroom } = this;
    for (let index = start; index < start + count; index++) {
      const at = out[index]! << WORDS_SHIFT;
      fields[at + DATA_OFFSET] = headroom;
      fields[at + SEGMENT_LENGTH] = 0;
      fields[at + PACKET_LENGTH] = 0;
    }
    return true;
  }

  /** Number of segments of a packet. */
  segments(handle: number): number {
    let count = 0;
    for (let next = handle + 1; next !== 0; count++) next = this.fields[((next - 1) << WORDS_SHIFT) + NEXT]!;
    return count;
  }

  /** Gives this thread's cache back to all; before a thread stops using the pool. */
  flush(): void {
    this.freeList.flush();
  }
}

function invalid(message: string, value: number): VirtioError {
  return new VirtioError(ErrorCode.INVALID_ARGUMENT, `${message}, not ${value}`, { value });
}
