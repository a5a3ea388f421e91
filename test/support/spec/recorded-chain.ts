/** A chain of buffers between its publication and its use, with all that it held when it was published. */

/** Memory that both ends reach. */
export interface ReachedMemory {
  /** @throws Error where there is none */
  find(address: bigint, bytes: number): { readonly buffer: ArrayBuffer; readonly offset: number };
}

/** A descriptor as it stands in a ring or a table. */
export interface Described {
  readonly address: bigint;
  readonly length: number;
  readonly isWritable: boolean;
}

/** A buffer and its bytes of before. */
class WatchedBuffer {
  readonly isWritable: boolean;
  readonly live: Uint8Array;
  /** As published. */
  readonly first: Uint8Array;
  /** As last seen. */
  #last: Uint8Array;

  constructor(memory: ReachedMemory, { address, length, isWritable }: Described) {
    const { buffer, offset } = memory.find(address, length);
    this.isWritable = isWritable;
    this.live = new Uint8Array(buffer, offset, length);
    this.first = this.live.slice();
    this.#last = this.first;
  }

  get hasChanged(): boolean {
    return Buffer.compare(this.live, this.#last) !== 0;
  }

  /** What is there now is right. */
  accept(): void {
    if (this.hasChanged) this.#last = this.live.slice();
  }
}

export class RecordedChain {
  readonly id: number;
  /** Entries of the ring that it takes. */
  readonly entries: readonly number[];
  readonly buffers: readonly WatchedBuffer[];
  readonly table: WatchedBuffer | undefined;

  constructor(
    id: number,
    entries: readonly number[],
    memory: ReachedMemory,
    described: readonly Described[],
    table: Described | undefined,
  ) {
    this.id = id;
    this.entries = entries;
    this.buffers = described.map((each) => new WatchedBuffer(memory, each));
    this.table = table === undefined ? undefined : new WatchedBuffer(memory, table);
  }

  /** Bytes that the device may write. */
  get capacity(): number {
    return this.buffers.reduce((sum, { isWritable, live }) => sum + (isWritable ? live.length : 0), 0);
  }

  /** What the device may read, in order. */
  get readable(): Uint8Array {
    return Buffer.concat(this.buffers.filter(({ isWritable }) => !isWritable).map(({ first }) => first));
  }

  /** What stands in the device's part now. */
  get written(): Uint8Array {
    return Buffer.concat(this.buffers.filter(({ isWritable }) => isWritable).map(({ live }) => live));
  }

  /** Whether anything behind the first `length` bytes of the device's part is another than at publication. */
  hasChangedBehind(length: number): boolean {
    let left = length;
    for (const { isWritable, live, first } of this.buffers) {
      if (!isWritable) continue;
      if (Buffer.compare(live.subarray(left), first.subarray(left)) !== 0) return true;
      left = Math.max(0, left - live.length);
    }
    return false;
  }

  /** Whether what the device may only read has changed since the last look. */
  get hasChangedReadable(): boolean {
    return this.table?.hasChanged === true || this.buffers.some((each) => !each.isWritable && each.hasChanged);
  }
  get hasChangedWritable(): boolean {
    return this.buffers.some((each) => each.isWritable && each.hasChanged);
  }

  accept(): void {
    for (const each of this.buffers) each.accept();
    this.table?.accept();
  }
}
