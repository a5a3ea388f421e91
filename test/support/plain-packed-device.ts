/**
 * A device's end of a packed ring in the plainest way, by the words of virtio 1.2 §2.8 and nothing of the package: for
 * tests of the driver's end. It fails on whatever a driver must not do.
 */

import * as assert from 'uvu/assert';

const NEXT = 1;
const WRITE = 2;
const INDIRECT = 4;
const AVAIL = 1 << 7;
const USED = 1 << 15;

/** A buffer of a chain. */
export interface PlainBuffer {
  readonly address: bigint;
  readonly length: number;
  readonly isWritable: boolean;
}

/** A chain that the driver made available. */
export interface PlainChain {
  readonly id: number;
  /** Descriptors of the ring that it takes. */
  readonly descriptors: number;
  readonly isIndirect: boolean;
  readonly buffers: readonly PlainBuffer[];
}

/** Where the parts of a ring are in memory. */
export interface PlainRing {
  readonly size: number;
  readonly buffer: ArrayBuffer;
  readonly desc: number;
  readonly driver: number;
  readonly device: number;
}

export class PlainPackedDevice {
  readonly #ring: PlainRing;
  readonly #view: DataView;
  /** Offset into the memory of what the driver says is at an address; for indirect tables. */
  readonly #offsetOf: (address: bigint) => number;
  readonly #hasIndirect: boolean;
  /** Where the next available descriptor is expected, and where the next used one goes. */
  available: { offset: number; wrap: boolean };
  used: { offset: number; wrap: boolean };
  /** Chains taken and not used, in the order of the ring. */
  readonly taken: PlainChain[] = [];

  constructor(ring: PlainRing, hasIndirect: boolean, offsetOf: (address: bigint) => number, offset = 0, wrap = true) {
    this.#ring = ring;
    this.#view = new DataView(ring.buffer);
    this.#offsetOf = offsetOf;
    this.#hasIndirect = hasIndirect;
    this.available = { offset, wrap };
    this.used = { offset, wrap };
  }

  /** Flags of the descriptor at `offset`. */
  flags(offset: number): number {
    return this.#view.getUint16(this.#ring.desc + 16 * offset + 14, true);
  }

  /** Takes the next chain, or returns undefined when none is available. */
  take(): PlainChain | undefined {
    const { size, desc } = this.#ring;
    const { offset, wrap } = this.available;
    if (!isAvailable(this.flags(offset), wrap)) return undefined;
    const buffers: PlainBuffer[] = [];
    let isIndirect = false;
    let id = 0;
    let descriptors = 0;
    for (let at = offset, counter = wrap; ; descriptors++) {
      assert.ok(descriptors < size, 'a chain is no longer than the queue (§2.8.5)');
      const flags = this.flags(at);
      assert.ok(isAvailable(flags, counter), 'every descriptor of a chain is available when its head is (§2.8.21.1)');
      assert.is(flags & ~(NEXT | WRITE | INDIRECT | AVAIL | USED), 0, 'no flags that there are not (§2.8.16)');
      if ((flags & INDIRECT) !== 0) {
        assert.ok(this.#hasIndirect, 'tables only where they were negotiated (§2.8.19)');
        assert.is(flags & (NEXT | WRITE), 0, 'a table stands alone (§2.8.19)');
        buffers.push(...this.#table(desc + 16 * at));
        isIndirect = true;
      } else {
        buffers.push(this.#buffer(desc + 16 * at, (flags & WRITE) !== 0));
      }
      id = this.#view.getUint16(desc + 16 * at + 12, true);
      if ((flags & NEXT) === 0) break;
      if (++at === size) {
        at = 0;
        counter = !counter;
      }
    }
    descriptors++;
    const firstWritable = buffers.findIndex(({ isWritable }) => isWritable);
    assert.ok(firstWritable < 0 || buffers.slice(firstWritable).every(({ isWritable }) => isWritable), '§2.8.17');
    assert.ok(!this.taken.some((chain) => chain.id === id), `id ${id} is not one that the device has (§2.8.6)`);
    const chain = { id, descriptors, isIndirect, buffers };
    this.taken.push(chain);
    this.available = this.#after(this.available, descriptors);
    return chain;
  }

  /** Uses a chain: any that was taken, in any order (§2.8.6). */
  use(chain: PlainChain, length: number): void {
    this.taken.splice(this.taken.indexOf(chain), 1);
    this.write(chain.id, length, chain.descriptors);
  }

  /** Writes a used descriptor, true or not, and moves on by `descriptors`. */
  write(id: number, length: number, descriptors: number): void {
    const at = this.#ring.desc + 16 * this.used.offset;
    this.#view.setUint32(at + 8, length, true);
    this.#view.setUint16(at + 12, id, true);
    this.#view.setUint16(at + 14, this.used.wrap ? AVAIL | USED : 0, true);
    this.used = this.#after(this.used, descriptors);
  }

  /** Tells the driver when it wants kicks: always, never, or at one descriptor (§2.8.14). */
  wantKicks(when: 'always' | 'never' | { readonly offset: number; readonly wrap: boolean }): void {
    const { device } = this.#ring;
    const code = when === 'always' ? 0 : when === 'never' ? 1 : 2;
    if (typeof when === 'object') this.#view.setUint16(device, when.offset | (when.wrap ? 0x8000 : 0), true);
    this.#view.setUint16(device + 2, code, true);
  }

  /** When the driver wants calls. */
  get callsWanted(): 'always' | 'never' | { readonly offset: number; readonly wrap: boolean } {
    const { driver } = this.#ring;
    const word = this.#view.getUint16(driver, true);
    const code = this.#view.getUint16(driver + 2, true);
    assert.ok(code <= 2, 'flags of an event suppression structure are 0 to 2 (§2.8.14)');
    if (code === 2) return { offset: word & 0x7fff, wrap: (word & 0x8000) !== 0 };
    return code === 0 ? 'always' : 'never';
  }

  #table(descriptor: number): PlainBuffer[] {
    const bytes = this.#view.getUint32(descriptor + 8, true);
    assert.ok(bytes > 0 && bytes % 16 === 0, 'a table is descriptors (§2.8.7)');
    assert.ok(bytes / 16 <= this.#ring.size, 'no more of them than the queue has (§2.8.19)');
    const start = this.#offsetOf(this.#view.getBigUint64(descriptor, true));
    return Array.from({ length: bytes / 16 }, (_, index) => {
      const flags = this.#view.getUint16(start + 16 * index + 14, true);
      assert.is(flags & ~WRITE, 0, 'in a table only WRITE (§2.8.19)');
      return this.#buffer(start + 16 * index, (flags & WRITE) !== 0);
    });
  }

  #buffer(at: number, isWritable: boolean): PlainBuffer {
    return { address: this.#view.getBigUint64(at, true), length: this.#view.getUint32(at + 8, true), isWritable };
  }

  #after({ offset, wrap }: { offset: number; wrap: boolean }, count: number): { offset: number; wrap: boolean } {
    const to = offset + count;
    return to < this.#ring.size ? { offset: to, wrap } : { offset: to - this.#ring.size, wrap: !wrap };
  }
}

/** "the driver sets AVAIL to match the Driver Ring Wrap Counter, and USED to match the inverse value" (§2.8.1). */
const isAvailable = (flags: number, wrap: boolean): boolean =>
  ((flags & AVAIL) !== 0) === wrap && ((flags & USED) !== 0) !== wrap;
