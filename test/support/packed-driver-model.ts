/** What the driver's end of a packed ring must do, in the plainest way, and steps of both ends that are checked by it. */

import * as assert from 'uvu/assert';
import { PacketField } from '../../driver/memory/packet-fields.js';
import type { PlainChain } from './plain-packed-device.js';
import { postBuffers, reclaim, reclaimSent } from './ring-handles.js';
import { POSTED_BYTES, type SmallPackedRing } from './small-packed-ring.js';
import { HEADER_BYTES, segmentBytes } from './small-ring.js';

/** A chain as the model knows it. */
interface Chain {
  readonly handle: number;
  readonly segments: number;
  readonly isBuffer: boolean;
  readonly descriptors: number;
  length: number;
  plain?: PlainChain;
}

const HANDLES = 64;
const one = new Uint32Array(HANDLES);
const out = new Uint32Array(HANDLES);
const lengths = new Uint32Array(HANDLES);

export class PackedDriverModel {
  readonly #ring: SmallPackedRing;
  readonly #size: number;
  readonly #busy = new Set<number>();
  readonly posted: Chain[] = [];
  readonly taken: Chain[] = [];
  readonly used: Chain[] = [];
  free: number;
  /** Descriptors ever made available and ever used, counted from where the ring began. */
  #available = 0;
  #returned = 0;
  #reclaimed = 0;
  readonly #start: number;
  #kicks: 'always' | 'never' | number = 'always';
  #calls: 'always' | 'never' | number = 'never';

  constructor(ring: SmallPackedRing) {
    this.#ring = ring;
    this.#size = ring.options.size;
    this.free = this.#size;
    const { offset = 0, wrap = true } = ring.options;
    this.#start = offset + (wrap ? 0 : this.#size);
  }

  /** Posts a packet; returns whether it was taken. */
  packet(segments: number): boolean {
    const handle = this.#handles(segments);
    this.#ring.setPacket(handle, segments);
    one[0] = handle;
    const isTooLong = segments > this.#size && this.free > 0;
    const expected = this.#post({ handle, segments, isBuffer: false, length: 0 });
    assert.is(this.#ring.driver.postPackets(one, 0, 1), expected ? 1 : 0, 'packets posted');
    assert.is(this.#ring.driver.unsendable, isTooLong, 'longer than the ring');
    this.#checkKick(expected ? this.posted.at(-1)!.descriptors : 0);
    return expected;
  }

  /** Posts up to `count` buffers. */
  buffers(count: number): void {
    let expected = 0;
    for (let index = 0; index < count; index++) {
      const handle = this.#handles(1);
      one[index] = handle;
      if (this.#post({ handle, segments: 1, isBuffer: true, length: 0 })) expected++;
    }
    assert.is(postBuffers(this.#ring.driver, this.#ring.pool, one, 0, count), expected, 'buffers posted');
    this.#checkKick(expected);
  }

  /** The device takes the next chain, if there is one. */
  take(): boolean {
    const plain = this.#ring.device.take();
    const chain = this.posted.shift();
    assert.is(plain === undefined, chain === undefined, 'a chain is there when one was posted');
    if (plain === undefined || chain === undefined) return false;
    chain.plain = plain;
    this.#checkChain(chain, plain);
    this.taken.push(chain);
    return true;
  }

  /** The device uses a chain that it took: the `choice`-th of them, from the last when negative. */
  use(choice: number): boolean {
    const chain = this.taken.at(choice);
    if (chain === undefined) return false;
    this.taken.splice(this.taken.indexOf(chain), 1);
    // What a device says of a packet that it has read means nothing, and is 0 for the driver.
    const claimed = 1 + (chain.handle % 40);
    chain.length = chain.isBuffer ? claimed : 0;
    this.#ring.device.use(chain.plain!, claimed);
    this.used.push(chain);
    this.#returned += chain.descriptors;
    return true;
  }

  reclaim(most: number, sent = false): number {
    const { driver } = this.#ring;
    assert.is(driver.hasUsed(), this.used.length > 0, 'used chains wait');
    assert.is(driver.usedCount(), this.used.length);
    const expected = this.used.splice(0, most);
    const count = sent ? reclaimSent(driver, this.#ring.pool, out, most) : reclaim(driver, out, lengths, 0, most);
    assert.is(count, expected.length, 'chains reclaimed');
    for (const [index, chain] of expected.entries()) {
      assert.is(out[index], chain.handle, 'in the order in which they were used');
      if (!sent) assert.is(lengths[index], chain.length, 'length');
      this.free += chain.descriptors;
      this.#reclaimed += chain.descriptors;
      for (let segment = 0; segment < chain.segments; segment++) this.#busy.delete(chain.handle + segment);
    }
    return count;
  }

  /** The device says when it wants kicks: a number is descriptors ahead of what it took. */
  wantKicks(when: 'always' | 'never' | number): void {
    if (typeof when === 'string') {
      this.#kicks = when;
      this.#ring.device.wantKicks(when);
      return;
    }
    this.#kicks = this.#available - this.posted.reduce((sum, { descriptors }) => sum + descriptors, 0) + when;
    this.#ring.device.wantKicks(this.#place(this.#kicks));
  }

  calls(on: boolean): void {
    const { driver, options } = this.#ring;
    if (on) assert.is(driver.enableCalls(), this.used.length === 0, 'nothing waits');
    else driver.disableCalls();
    this.#calls = !on ? 'never' : options.eventIndex ? this.#reclaimed : 'always';
  }

  check(): void {
    const { driver, device } = this.#ring;
    assert.is(driver.broken, undefined);
    assert.is(driver.free, this.free, 'free descriptors');
    assert.is(driver.inFlight, this.posted.length + this.taken.length + this.used.length, 'chains in flight');
    const { offset, wrap } = this.#place(this.#available);
    assert.is(driver.position, offset | (wrap ? 0x8000 : 0), 'position');
    const calls = typeof this.#calls === 'number' ? this.#place(this.#calls) : this.#calls;
    assert.equal(device.callsWanted, calls, 'calls');
    assert.equal(device.used, this.#place(this.#returned), 'the model counts as the device does');
  }

  /** Brings every chain back. */
  drain(): void {
    while (this.take());
    while (this.use(0));
    this.reclaim(HANDLES);
    this.check();
    assert.is(this.free, this.#size);
  }

  /** What a step can change, as a text. */
  get state(): string {
    const { posted, taken, used } = this;
    return [posted.length, taken.length, used.length, this.free, this.#available, this.#kicks, this.#calls].join();
  }

  #handles(count: number): number {
    for (let first = 0; ; first++) {
      if (Array.from({ length: count }, (_, index) => first + index).every((handle) => !this.#busy.has(handle))) {
        for (let index = 0; index < count; index++) this.#busy.add(first + index);
        return first;
      }
    }
  }

  #post(chain: Omit<Chain, 'descriptors'>): boolean {
    const { segments } = chain;
    const descriptors = this.#ring.options.indirect && segments > 1 ? 1 : segments;
    if (segments > this.#size || descriptors > this.free) {
      for (let segment = 0; segment < segments; segment++) this.#busy.delete(chain.handle + segment);
      return false;
    }
    this.free -= descriptors;
    this.#available += descriptors;
    this.posted.push({ ...chain, descriptors });
    return true;
  }

  #checkKick(descriptors: number): void {
    const before = this.#available - descriptors;
    const event = this.#kicks;
    const hasDesc = typeof event === 'number';
    // A position comes again every second round: who does not move it on is called once more.
    const isNew = hasDesc && remainder(event - before, 2 * this.#size) < descriptors;
    // Without EVENT_IDX there is no position to speak of: a kick too many does no harm.
    const isPassed = isNew || (hasDesc && !this.#ring.options.eventIndex);
    assert.is(this.#ring.driver.needsKick(), descriptors > 0 && (event === 'always' || isPassed), 'kick');
  }

  #checkChain({ handle, segments, isBuffer, descriptors }: Chain, plain: PlainChain): void {
    assert.is(plain.buffers.length, segments, 'segments');
    assert.is(plain.descriptors, descriptors, 'descriptors');
    const { headroom } = this.#ring.pool;
    for (let segment = 0; segment < segments; segment++) {
      const leading = segment === 0 ? HEADER_BYTES : 0;
      assert.equal(plain.buffers[segment], {
        address: this.#ring.address(handle + segment, headroom - leading),
        length: isBuffer ? POSTED_BYTES : segmentBytes(handle, segment) + leading,
        isWritable: isBuffer,
      });
    }
    if (!isBuffer) assert.is(this.#ring.pool.fields[handle * PacketField.WORDS + PacketField.DATA_OFFSET], headroom);
  }

  #place(count: number): { offset: number; wrap: boolean } {
    const at = (this.#start + count) % (2 * this.#size);
    return at < this.#size ? { offset: at, wrap: true } : { offset: at - this.#size, wrap: false };
  }
}

/** The remainder that is not negative. */
const remainder = (value: number, divisor: number): number => ((value % divisor) + divisor) % divisor;
