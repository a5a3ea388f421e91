/** A device's end of a ring that remembers what it has in hand (vhost-user "Inflight I/O tracking"). */

import type { DeviceRing } from './ends.js';

/** What is noted of chains, in a region that outlives the device. */
export interface InflightNotes<Ring extends DeviceRing> {
  /** Chains `start` to `end - 1` of the ring's last `pop` are taken, in this order. */
  fetch(ring: Ring, start: number, end: number): void;
  /** Before the ring tells of the first `count` chains of its last `pop`. */
  beginBatch(ring: Ring, count: number): void;
  /** After it has. */
  endBatch(ring: Ring, count: number): void;
  /** Forgets what was taken and not told of: somebody else takes it again. */
  release(): void;
}

/** What a device goes on with. */
export interface InflightStart<Ring extends DeviceRing> {
  /** Over chains of the device before, which are noted already; or over the guest's own where `resumed` is 0. */
  readonly first: Ring;
  /** How many chains of the device before there are. */
  readonly resumed: number;
  /** A ring over the guest's own chains, from this base on. */
  goOn(base: number): Ring;
}

/**
 * Wraps a ring: notes each chain before it is handed out, and each batch before and after it is returned.
 *
 * What the device before had in hand comes first.
 */
export class InflightDeviceRing<Ring extends DeviceRing = DeviceRing> implements DeviceRing {
  readonly size: number;
  readonly #notes: InflightNotes<Ring>;
  readonly #goOn: (base: number) => Ring;
  #inner: Ring;
  /** Chains of the device before that are still to be returned. */
  #resumed: number;
  /** Chains that were noted and not returned: the next `pop` looks at them again, first of all. */
  #noted = 0;
  /** The last chains of the device before were returned, and the driver was not called yet. */
  #owesCall = false;

  constructor(notes: InflightNotes<Ring>, { first, resumed, goOn }: InflightStart<Ring>) {
    this.size = first.size;
    this.#notes = notes;
    this.#inner = first;
    this.#resumed = resumed;
    this.#goOn = goOn;
  }

  get broken(): string | undefined {
    return this.#inner.broken;
  }
  get base(): number {
    return this.#inner.base;
  }
  get usedIndex(): number {
    return this.#inner.usedIndex;
  }
  get popped(): number {
    return this.#inner.popped;
  }
  get heads(): Uint16Array {
    return this.#inner.heads;
  }
  get allReadable(): boolean {
    return this.#inner.allReadable;
  }
  get allWritable(): boolean {
    return this.#inner.allWritable;
  }
  get firstJob(): Uint32Array {
    return this.#inner.firstJob;
  }

  pop(most: number): number {
    const popped = this.#inner.pop(most);
    // Those of the device before are noted already.
    if (this.#resumed > 0) return popped;
    if (popped > this.#noted) {
      this.#notes.fetch(this.#inner, this.#noted, popped);
      this.#noted = popped;
    }
    return popped;
  }

  returnChains(lengths: Uint32Array, count: number): void {
    this.#notes.beginBatch(this.#inner, count);
    this.#inner.returnChains(lengths, count);
    this.#end(count);
  }

  returnEmpty(count: number): void {
    this.#notes.beginBatch(this.#inner, count);
    this.#inner.returnEmpty(count);
    this.#end(count);
  }

  /** Forgets what was looked at and not returned, before the ring is stopped. */
  release(): void {
    // Those of the device before are not behind the index that the ring stops at, whatever the guest's ring says.
    if (this.#noted > 0) this.#notes.release();
    this.#noted = 0;
  }

  needsCall(): boolean {
    // A ring over chains of the device before may know no wish of the driver's: one call too many does no harm.
    const needsCall = this.#inner.needsCall() || this.#resumed > 0 || this.#owesCall;
    this.#owesCall = false;
    return needsCall;
  }
  enableKicks(): boolean {
    return this.#inner.enableKicks() && this.#resumed === 0;
  }
  disableKicks(): void {
    this.#inner.disableKicks();
  }

  #end(count: number): void {
    this.#notes.endBatch(this.#inner, count);
    if (this.#resumed === 0) {
      this.#noted -= count;
      return;
    }
    this.#resumed -= count;
    if (this.#resumed > 0) return;
    // The guest's own ring goes on behind the chains that were taken out of it before.
    this.#inner = this.#goOn(this.#inner.usedIndex);
    this.#owesCall = true;
  }
}
