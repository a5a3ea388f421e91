/** Every interleaving of steps of both ends of every small split ring, against a plain model (virtio 1.2 §2.7). */

import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { CopyDirection } from '../../native/index.js';
import { postBuffers, reclaim } from '../support/ring-handles.js';
import { HEADER_BYTES, SmallRing, type SmallRingOptions, segmentBytes } from '../support/small-ring.js';

export const timeBoundSeconds = 400;

const test = suite('split ring, every small one');
const full = process.env['VIRTIO_PMD_FULL'] === '1';
const HANDLES = 24;

/** A chain as the model knows it. */
interface Chain {
  readonly handle: number;
  readonly segments: number;
  readonly isBuffer: boolean;
  readonly descriptors: number;
  /** What the device returned it with. */
  length: number;
}

/** What the ring must do, in the plainest way. Indices are not wrapped. */
class Model {
  readonly #options: SmallRingOptions;
  free: number;
  /** Every chain ever posted; the first `reclaimed` are back, the first `returned` are used. */
  readonly chains: Chain[] = [];
  returned = 0;
  reclaimed = 0;
  /** Chains that the device holds from its last `pop`. */
  popped = 0;
  kicksOn = false;
  callsOn = false;
  /** Position whose passing is announced. */
  availEvent = -1;
  usedEvent = -1;
  #nextHandle: number;

  /** @param firstHandle where to begin to hand out buffers */
  constructor(options: SmallRingOptions, firstHandle: number) {
    this.#options = options;
    this.free = options.size;
    this.#nextHandle = firstHandle;
  }

  /** The next `count` buffers nobody uses: no more than `HANDLES` are ever asked for. */
  handles(count: number): number {
    const first = this.#nextHandle;
    this.#nextHandle = (this.#nextHandle + count) % (HANDLES - 1);
    return first + count > HANDLES - 1 ? 0 : first;
  }

  /** Whether a chain of this kind can be posted; then it is. */
  post(handle: number, segments: number, isBuffer: boolean): boolean {
    const { size, indirect } = this.#options;
    if (segments > size) return false;
    const descriptors = indirect && segments > 1 ? 1 : segments;
    if (descriptors > this.free) return false;
    this.free -= descriptors;
    this.chains.push({ handle, segments, isBuffer, descriptors, length: 0 });
    return true;
  }

  /** Whether moving on from `before` to the end must be announced. */
  mustKick(before: number): boolean {
    if (this.chains.length === before) return false;
    return this.#options.eventIndex ? this.availEvent >= before && this.availEvent < this.chains.length : this.kicksOn;
  }
  mustCall(before: number): boolean {
    if (this.returned === before) return false;
    return this.#options.eventIndex ? this.usedEvent >= before && this.usedEvent < this.returned : this.callsOn;
  }

  /** All that a step can change, as a text. */
  get state(): string {
    const { free, returned, reclaimed, popped, kicksOn, callsOn, availEvent, usedEvent } = this;
    return [this.chains.length, free, returned, reclaimed, popped, kicksOn, callsOn, availEvent, usedEvent].join();
  }
}

type Step = (ring: SmallRing, model: Model) => void;

const one = new Uint32Array(1);
const out = new Uint32Array(16);
const lengths = new Uint32Array(16);

function postPacket(segments: number): Step {
  return (ring, model) => {
    const handle = model.handles(segments);
    ring.setPacket(handle, segments);
    const before = model.chains.length;
    // A full ring does not look at the packet.
    const unsendable = model.free > 0 && segments > ring.options.size;
    const expected = model.post(handle, segments, false) ? 1 : 0;
    one[0] = handle;
    assert.is(ring.driver.postPackets(one, 0, 1), expected, 'packets posted');
    assert.is(ring.driver.unsendable, unsendable, 'longer than the ring');
    assert.is(ring.driver.needsKick(), model.mustKick(before), 'kick');
  };
}

const postTwo: Step = (ring, model) => {
  const before = model.chains.length;
  let expected = 0;
  for (let index = 0; index < 2; index++) {
    const handle = model.handles(1);
    ring.setPacket(handle, 1);
    out[index] = handle;
    if (model.post(handle, 1, false)) expected++;
  }
  assert.is(ring.driver.postPackets(out, 0, 2), expected, 'packets posted');
  assert.is(ring.driver.needsKick(), model.mustKick(before), 'kick');
};

const postBuffer: Step = (ring, model) => {
  const handle = model.handles(1);
  const before = model.chains.length;
  const expected = model.post(handle, 1, true) ? 1 : 0;
  one[0] = handle;
  assert.is(postBuffers(ring.driver, ring.pool, one, 0, 1), expected, 'buffers posted');
  assert.is(ring.driver.needsKick(), model.mustKick(before), 'kick');
};

function pop(most: number): Step {
  return (ring, model) => {
    const expected = Math.min(most, model.chains.length - model.returned);
    assert.is(ring.device.pop(most), expected, 'chains popped');
    assert.is(ring.device.popped, expected);
    model.popped = expected;
    for (let index = 0; index < expected; index++) checkChain(ring, model.chains[model.returned + index]!, index);
  };
}

function checkChain(ring: SmallRing, chain: Chain, index: number): void {
  const { firstJob } = ring.device;
  const first = firstJob[index]!;
  assert.is(firstJob[index + 1]! - first, chain.segments, 'descriptors of the chain');
  const { headroom, bufferBytes } = ring.pool;
  for (let segment = 0; segment < chain.segments; segment++) {
    const header = segment === 0 ? HEADER_BYTES : 0;
    const bytes = chain.isBuffer ? bufferBytes - headroom + header : segmentBytes(chain.handle, segment) + header;
    const direction = chain.isBuffer ? CopyDirection.TO_GUEST : CopyDirection.FROM_GUEST;
    const expected = [...ring.address(chain.handle + segment, headroom - header), bytes, direction];
    assert.equal(ring.job(first + segment), expected, `descriptor ${segment}`);
  }
}

function giveBack(most: number): Step {
  return (ring, model) => {
    const count = Math.min(most, model.popped);
    const before = model.returned;
    for (let index = 0; index < count; index++) {
      const chain = model.chains[model.returned + index]!;
      chain.length = chain.isBuffer ? 1 + (chain.handle % 40) : 0;
      // What a device says of a packet that it has read means nothing, and is 0 for the driver.
      lengths[index] = chain.isBuffer ? chain.length : chain.handle & 1;
    }
    ring.device.returnChains(lengths, count);
    model.returned += count;
    model.popped = 0;
    assert.is(ring.device.needsCall(), model.mustCall(before), 'call');
    assert.is(ring.device.base, (ring.index + model.returned) & 0xffff, 'base');
  };
}

function takeBack(most: number): Step {
  return (ring, model) => {
    const count = Math.min(most, model.returned - model.reclaimed);
    assert.is(reclaim(ring.driver, out, lengths, 0, most), count, 'chains reclaimed');
    for (let index = 0; index < count; index++) {
      const chain = model.chains[model.reclaimed + index]!;
      assert.is(out[index], chain.handle, 'oldest first');
      assert.is(lengths[index], chain.length, 'length');
      model.free += chain.descriptors;
    }
    model.reclaimed += count;
  };
}

const steps: readonly (readonly [name: string, step: Step])[] = [
  ['post a packet', postPacket(1)],
  ['post two packets', postTwo],
  ['post a packet of two segments', postPacket(2)],
  ['post a buffer', postBuffer],
  ['pop one', pop(1)],
  ['pop all', pop(8)],
  ['return one', giveBack(1)],
  ['return all', giveBack(8)],
  ['reclaim one', takeBack(1)],
  ['reclaim all', takeBack(16)],
  [
    'kicks on',
    (ring, model) => {
      model.kicksOn = true;
      model.availEvent = model.returned;
      assert.is(ring.device.enableKicks(), model.chains.length === model.returned, 'nothing waits');
    },
  ],
  [
    'kicks off',
    (ring, model) => {
      model.kicksOn = false;
      model.availEvent = -1;
      ring.device.disableKicks();
    },
  ],
  [
    'calls on',
    (ring, model) => {
      model.callsOn = true;
      model.usedEvent = model.reclaimed;
      assert.is(ring.driver.enableCalls(), model.returned === model.reclaimed, 'nothing waits');
    },
  ],
  [
    'calls off',
    (ring, model) => {
      model.callsOn = false;
      model.usedEvent = -1;
      ring.driver.disableCalls();
    },
  ],
];

/** How a sequence finds the ends: made for it, or as the sequence before left them, all chains back. */
type Ends = 'fresh' | 'worn';

/** Worn ends are made anew when they have come so far from the index of the options; never for those that begin at 0. */
const WINDOW = 12;

/** Runs a sequence; returns whether its last step changed anything. */
function run(ring: SmallRing, sequence: readonly number[], ends: Ends, firstHandle: number): boolean {
  const { base } = ring.options;
  if (ends === 'fresh' || (base > 0 && ((ring.index - base) & 0xffff) > WINDOW)) ring.renew();
  const model = new Model(ring.options, firstHandle);
  let before = model.state;
  try {
    for (const number of sequence) {
      before = model.state;
      steps[number]![1](ring, model);
      if (ring.driver.free !== model.free) assert.is(ring.driver.free, model.free, 'free descriptors');
      const inFlight = model.chains.length - model.reclaimed;
      if (ring.driver.inFlight !== inFlight) assert.is(ring.driver.inFlight, inFlight, 'chains in flight');
      if (ring.driver.broken !== undefined) assert.unreachable(ring.driver.broken);
      if (ring.device.broken !== undefined) assert.unreachable(ring.device.broken);
    }
    const changed = model.state !== before;
    if (ends === 'worn') drain(ring, model);
    return changed;
  } catch (error) {
    const names = sequence.map((number) => steps[number]![0]).join(', ');
    (error as Error).message = `${names} (${ends}, from ${ring.index}): ${(error as Error).message}`;
    throw error;
  }
}

/** Brings every chain back, checked like all others, and turns notifications off. */
function drain(ring: SmallRing, model: Model): void {
  while (model.returned < model.chains.length) {
    pop(8)(ring, model);
    giveBack(8)(ring, model);
  }
  takeBack(16)(ring, model);
  ring.device.disableKicks();
  ring.driver.disableCalls();
  ring.index = (ring.index + model.returned) & 0xffff;
}

/** Runs every sequence of up to `depth` steps; what follows a step that changed nothing was run without it. */
function explore(ring: SmallRing, depth: number, ends: Ends, firstHandle = 0): number {
  let sequences = 0;
  const sequence: number[] = [];
  const extend = (): void => {
    for (let number = 0; number < steps.length; number++) {
      sequence.push(number);
      sequences++;
      if (run(ring, sequence, ends, firstHandle) && sequence.length < depth) extend();
      sequence.pop();
    }
  };
  extend();
  return sequences;
}

/** Steps of a sequence, by size, ends and where they begin. */
const depths: readonly (readonly [size: number, ends: Ends, base: number, depth: number, fullDepth: number])[] = [
  [1, 'fresh', 0, 4, 6],
  [2, 'fresh', 0, 4, 5],
  [4, 'fresh', 0, 3, 5],
  [1, 'worn', 0, 6, 9],
  [2, 'worn', 0, 5, 8],
  [4, 'worn', 0, 5, 7],
  // Near the wrap of the indices at 65536.
  [1, 'worn', 65_530, 5, 7],
  [2, 'worn', 65_530, 4, 6],
  [4, 'worn', 65_530, 4, 6],
];

for (const [size, ends, base, depth, fullDepth] of depths) {
  const most = full ? fullDepth : depth;
  test(`size ${size}, ${ends} ends from index ${base}: every sequence of ${most} steps`, () => {
    let sequences = 0;
    for (const eventIndex of [false, true]) {
      for (const indirect of [false, true]) {
        using ring = new SmallRing({ size, eventIndex, indirect, base });
        sequences += explore(ring, most, ends);
      }
    }
    assert.ok(sequences > 1000, `${sequences} sequences`);
  });
}

test('buffers on both sides of 4 GiB: the high word is written where it differs', () => {
  for (const indirect of [false, true]) {
    using ring = new SmallRing({ size: 2, eventIndex: false, indirect, base: 0, splitAddresses: true });
    assert.is(ring.pool.commonHighWord, -1);
    const [, first] = ring.address(0, 0);
    // The model hands out buffers in turn: begin where the high word is about to change.
    assert.not.equal(ring.address(HANDLES - 1, 0)[1], first);
    explore(ring, full ? 8 : 5, 'worn', 14);
  }
});

test.run();
