/** Every chain that fits a ring of up to four entries, sound or not, against a plain walk (virtio 1.2 §2.7.5; abuse B58, B59). */

import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { DmaMemory } from '../../driver/memory/dma-memory.js';
import { jobsNeeded, splitDeviceRing } from '../../driver/ring/split-device-ring.js';
import { AVAIL_INDEX, AVAIL_RING, DESC_WORDS, SplitRingViews } from '../../driver/ring/split-views.js';
import { DescFlag, splitRingParts } from '../../driver/spec/ring.js';
import { CopyDirection, type CopyEngine, CopyJob, native } from '../../native/index.js';

const test = suite('split ring, every small chain');
const { NEXT, WRITE, INDIRECT } = DescFlag;
const BURST = 4;
const TABLE_AT = 8192;

/** A descriptor as the driver wrote it; addresses and lengths follow from where it stands. */
interface Descriptor {
  readonly flags: number;
  readonly next: number;
  /** Bytes of the table, where `flags` say INDIRECT. */
  readonly tableBytes: number;
}

/** One buffer of a chain: where its descriptor stands, and its direction. */
interface Buffer {
  readonly table: boolean;
  readonly index: number;
  readonly writable: boolean;
}

/** Thrown when a walk needs a descriptor that has not been chosen yet. */
class Undecided {
  readonly table: boolean;
  readonly index: number;
  constructor(table: boolean, index: number) {
    this.table = table;
    this.index = index;
  }
}

/** The descriptors chosen so far: of the ring, and of the one indirect table there is. */
interface Choice {
  readonly ring: (Descriptor | undefined)[];
  readonly table: (Descriptor | undefined)[];
}

/** Follows a chain in the plainest way: the list of its buffers, or undefined when it breaks the ring. */
function follow(choice: Choice, size: number, head: number, indirectAccepted: boolean): Buffer[] | undefined {
  const buffers: Buffer[] = [];
  if (head >= size) return undefined;
  let table = false;
  let entries = size;
  let at = head;
  for (;;) {
    const descriptor = (table ? choice.table : choice.ring)[at];
    if (descriptor === undefined) throw new Undecided(table, at);
    if ((descriptor.flags & INDIRECT) !== 0) {
      const { tableBytes } = descriptor;
      const isFine = indirectAccepted && !table && (descriptor.flags & NEXT) === 0;
      if (!isFine || tableBytes === 0 || tableBytes % 16 !== 0 || tableBytes / 16 > size) return undefined;
      table = true;
      entries = tableBytes / 16;
      at = 0;
      continue;
    }
    buffers.push({ table, index: at, writable: (descriptor.flags & WRITE) !== 0 });
    // A chain has no more descriptors than the queue, so a loop shows as one that has.
    if (buffers.length > size) return undefined;
    if ((descriptor.flags & NEXT) === 0) return buffers;
    at = descriptor.next;
    if (at >= entries) return undefined;
  }
}

const addressLow = (buffer: Pick<Buffer, 'table' | 'index'>): number => (buffer.table ? 0x2000 : 0x1000) + buffer.index;
const addressHigh = (buffer: Pick<Buffer, 'table' | 'index'>): number => (buffer.table ? 7 : 5) + buffer.index;
const lengthOf = (buffer: Pick<Buffer, 'table' | 'index'>): number => (buffer.table ? 300 : 100) + buffer.index;

/** A device end over a ring that the test writes by hand; counts what is read of the descriptor table. */
class Harness {
  readonly size: number;
  readonly engine: CopyEngine;
  readonly #indirect: boolean;
  readonly #memory = DmaMemory.allocate({ bytes: 16 * 1024, pages: '4K' });
  readonly #scratch = DmaMemory.allocate({ bytes: 4096, pages: '4K' });
  readonly #views: SplitRingViews;
  readonly #table: Uint32Array;
  readonly #reads: Uint8Array;
  #outside = 0;

  constructor(size: number, indirect: boolean) {
    this.size = size;
    this.#indirect = indirect;
    const { buffer } = this.#memory;
    const views = new SplitRingViews(size, { buffer, offset: 0 }, { buffer, offset: 1024 }, { buffer, offset: 2048 });
    this.#reads = new Uint8Array(views.desc.length);
    const desc = new Proxy(views.desc, {
      get: (target, key) => {
        const position = typeof key === 'string' ? Number(key) : Number.NaN;
        if (Number.isNaN(position)) return Reflect.get(target, key, target);
        if (position >= 0 && position < target.length) this.#reads[position]! += 1;
        else this.#outside++;
        return target[position];
      },
    });
    this.#views = Object.assign(Object.create(SplitRingViews.prototype), views, { desc }) as SplitRingViews;
    assert.is(splitRingParts(size).desc.bytes / 4, views.desc.length);
    this.#table = new Uint32Array(buffer, TABLE_AT, 4 * 8);
    this.engine = new native.CopyEngine(jobsNeeded(size, BURST));
    this.engine.setPool(this.#scratch.buffer);
    this.engine.addRegion({ ...this.#memory.range, guestAddress: 0n });
  }

  /** Has the device pop one chain from `head`; returns its jobs, or why the ring broke. */
  pop(choice: Choice, head: number): string | readonly number[] {
    const { desc, avail, used } = this.#views;
    used.fill(0);
    this.#write(desc, choice.ring, false);
    this.#write(this.#table, choice.table, true);
    avail[AVAIL_RING] = head;
    avail[AVAIL_INDEX] = 1;
    const ring = splitDeviceRing(this.#views, {
      engine: this.engine,
      burst: BURST,
      base: 0,
      eventIndex: false,
      scratch: this.#indirect ? { poolOffset: 0, words: new Uint32Array(this.#scratch.buffer) } : undefined,
    });
    this.engine.jobs.fill(0xdead_beef);
    this.#reads.fill(0);
    this.#outside = 0;
    const popped = ring.pop(BURST);
    assert.is(this.#outside, 0, 'nothing outside the descriptor table is read');
    const reads = this.#reads.reduce((sum, count) => sum + count, 0);
    assert.ok(reads <= this.size * DESC_WORDS, `a walk ends within ${this.size} descriptors: ${reads} words read`);
    if (ring.broken !== undefined) {
      assert.is(popped, 0);
      assert.is(ring.pop(BURST), 0, 'a broken ring stands still');
      return ring.broken;
    }
    assert.is(popped, 1);
    // A driver that rewrites a descriptor while it is looked at is not believed twice (CVE-2026-93683, CVE-2026-86848).
    if (this.#reads.some((count) => count > 1)) assert.unreachable(`a word was read twice: ${this.#reads}`);
    const { jobs } = this.engine;
    const found: number[] = [];
    for (let job = ring.firstJob[0]!; job < ring.firstJob[1]!; job++) {
      const at = job * CopyJob.WORDS;
      found.push(
        jobs[at + CopyJob.GUEST_LOW]!,
        jobs[at + CopyJob.GUEST_HIGH]!,
        jobs[at + CopyJob.LENGTH]!,
        jobs[at + CopyJob.DIRECTION]!,
      );
    }
    assert.is(jobs[ring.firstJob[1]! * CopyJob.WORDS + CopyJob.LENGTH], 0xdead_beef, 'no job behind the last');
    return found;
  }

  /** Descriptors that are not chosen lead astray: a walk that touches one is seen. */
  #write(words: Uint32Array, descriptors: readonly (Descriptor | undefined)[], table: boolean): void {
    for (let index = 0; index < words.length / DESC_WORDS; index++) {
      const at = index * DESC_WORDS;
      const descriptor = descriptors[index];
      const isTable = descriptor !== undefined && (descriptor.flags & INDIRECT) !== 0 && !table;
      words[at] = isTable ? TABLE_AT : addressLow({ table, index });
      words[at + 1] = isTable ? 0 : addressHigh({ table, index });
      words[at + 2] = isTable ? descriptor.tableBytes : lengthOf({ table, index });
      words[at + 3] = descriptor === undefined ? 0xffff_ffff : descriptor.flags | (descriptor.next << 16);
    }
  }

  [Symbol.dispose](): void {
    this.engine.close();
    this.#memory.close();
    this.#scratch.close();
  }
}

/** All descriptors that differ for the device: the position after the last is out of range, and so is a far one. */
function alternatives(size: number, table: boolean, hops: number): Descriptor[] {
  const found: Descriptor[] = [];
  const nexts = [...Array.from({ length: size + 1 }, (_, next) => next), 0xffff];
  for (const write of [0, WRITE]) {
    found.push({ flags: write, next: 0, tableBytes: 0 });
    for (const next of nexts) found.push({ flags: write | NEXT, next, tableBytes: 0 });
    found.push({ flags: write | NEXT | INDIRECT, next: 0, tableBytes: 16 });
    if (table) found.push({ flags: write | INDIRECT, next: 0, tableBytes: 16 });
    // A device ignores WRITE here, so behind other descriptors one of the two is enough.
    else if (write === 0 || hops === 0) {
      for (const tableBytes of [0, 1, 8, 15, 17, 16, 32, 48, 64, 80, 0xffff_fff0]) {
        found.push({ flags: write | INDIRECT, next: 0, tableBytes });
      }
    }
  }
  return found;
}

/** Tries every chain from `head`, choosing each descriptor when the walk comes to it; returns how many there were. */
function exhaust(harness: Harness, head: number, indirect: boolean): number {
  const { size } = harness;
  const choice: Choice = { ring: new Array(size).fill(undefined), table: new Array(8).fill(undefined) };
  let chains = 0;
  const decide = (hops: number): void => {
    let expected: Buffer[] | undefined;
    try {
      expected = follow(choice, size, head, indirect);
    } catch (undecided) {
      if (!(undecided instanceof Undecided)) throw undecided;
      const list = undecided.table ? choice.table : choice.ring;
      for (const descriptor of alternatives(size, undecided.table, hops)) {
        list[undecided.index] = descriptor;
        decide(hops + 1);
      }
      list[undecided.index] = undefined;
      return;
    }
    chains++;
    const found = harness.pop(choice, head);
    const what = (): string =>
      `head ${head}, ring ${JSON.stringify(choice.ring)}, table ${JSON.stringify(choice.table)}`;
    if (expected === undefined) {
      if (typeof found !== 'string') assert.unreachable(`the ring must break: ${what()}`);
      return;
    }
    if (typeof found === 'string') {
      assert.unreachable(`the ring must not break (${found}): ${what()}`);
      return;
    }
    const wanted = expected.flatMap((buffer) => [
      addressLow(buffer),
      addressHigh(buffer),
      lengthOf(buffer),
      buffer.writable ? CopyDirection.TO_GUEST : CopyDirection.FROM_GUEST,
    ]);
    if (String(found) !== String(wanted)) assert.equal(found, wanted, what());
  };
  decide(0);
  return chains;
}

for (const size of [1, 2, 4]) {
  for (const indirect of [false, true]) {
    test(`abuse-B58, abuse-B59: every chain of a ring of ${size}, indirect ${indirect ? 'accepted' : 'refused'}`, () => {
      using harness = new Harness(size, indirect);
      let chains = 0;
      for (const head of [0, size - 1]) chains += exhaust(harness, head, indirect);
      for (const head of [size, size + 1, 0xffff]) {
        assert.type(harness.pop({ ring: [], table: [] }, head), 'string', `head ${head}`);
      }
      assert.ok(chains > 20, `${chains}`);
    });
  }
}

test.run();
