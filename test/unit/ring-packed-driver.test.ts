/** The driver's end of a packed ring against a plain device: random steps, and every sequence on small rings (virtio 1.2 §2.8). */

import fc from 'fast-check';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { PackedDriverModel } from '../support/packed-driver-model.js';
import { postBuffers, reclaim, reclaimSent } from '../support/ring-handles.js';
import { SmallPackedRing } from '../support/small-packed-ring.js';

export const timeBoundSeconds = 400;

const test = suite('packed ring, the driver');
const full = process.env['VIRTIO_PMD_FULL'] === '1';

type Step = readonly [name: string, run: (model: PackedDriverModel) => void];

const steps: readonly Step[] = [
  ['post a packet', (model) => model.packet(1)],
  ['post a packet of two segments', (model) => model.packet(2)],
  ['post a packet of three segments', (model) => model.packet(3)],
  ['post a buffer', (model) => model.buffers(1)],
  ['post three buffers', (model) => model.buffers(3)],
  ['take', (model) => model.take()],
  ['use the first', (model) => model.use(0)],
  ['use the last', (model) => model.use(-1)],
  ['reclaim one', (model) => model.reclaim(1)],
  ['reclaim all', (model) => model.reclaim(16)],
  ['reclaim packets', (model) => model.reclaim(16, true)],
  ['kicks', (model) => model.wantKicks('always')],
  ['no kicks', (model) => model.wantKicks('never')],
  ['a kick for the next', (model) => model.wantKicks(0)],
  ['a kick for the one after', (model) => model.wantKicks(1)],
  ['calls', (model) => model.calls(true)],
  ['no calls', (model) => model.calls(false)],
];

/** Runs a sequence on a fresh ring; returns whether its last step changed anything. */
function run(ring: SmallPackedRing, sequence: readonly number[]): boolean {
  ring.renew();
  const model = new PackedDriverModel(ring);
  let before = '';
  try {
    for (const number of sequence) {
      before = model.state;
      steps[number]![1](model);
      model.check();
    }
    const changed = model.state !== before;
    model.drain();
    return changed;
  } catch (error) {
    const { size, offset = 0, wrap = true } = ring.options;
    const names = sequence.map((number) => steps[number]![0]).join(', ');
    (error as Error).message = `${names} (size ${size} from ${offset}, ${wrap}): ${(error as Error).message}`;
    throw error;
  }
}

function explore(ring: SmallPackedRing, depth: number): number {
  let sequences = 0;
  const sequence: number[] = [];
  const extend = (): void => {
    for (let number = 0; number < steps.length; number++) {
      sequence.push(number);
      sequences++;
      if (run(ring, sequence) && sequence.length < depth) extend();
      sequence.pop();
    }
  };
  extend();
  return sequences;
}

for (const size of [1, 2, 3, 4, 5]) {
  // Every place where the ring can begin, so that every step meets the wrap.
  test(`size ${size}: every sequence of ${full ? 4 : 3} steps, from every position`, () => {
    let sequences = 0;
    for (const eventIndex of [false, true]) {
      for (const indirect of [false, true]) {
        for (const wrap of [true, false]) {
          for (let offset = 0; offset < size; offset++) {
            using ring = new SmallPackedRing({ size, eventIndex, indirect, offset, wrap });
            sequences += explore(ring, full ? 4 : 3);
          }
        }
      }
    }
    assert.ok(sequences > 1000, `${sequences} sequences`);
  });
}

test('buffers on both sides of 4 GiB: each descriptor has its own high word', () => {
  for (const indirect of [false, true]) {
    using ring = new SmallPackedRing({ size: 3, eventIndex: false, indirect, splitAddresses: true });
    assert.is(ring.pool.commonHighWord, -1);
    explore(ring, 3);
    const model = new PackedDriverModel(ring);
    ring.renew();
    for (let round = 0; round < 50; round++) {
      model.packet(2);
      model.buffers(1);
      model.drain();
    }
  }
});

const count = fc.integer({ min: 1, max: 9 });
const anyStep = fc.oneof(
  count.map((segments) => (model: PackedDriverModel) => model.packet(Math.min(segments, 5))),
  count.map((buffers) => (model: PackedDriverModel) => model.buffers(buffers)),
  count.map((chains) => (model: PackedDriverModel) => {
    for (let chain = 0; chain < chains; chain++) model.take();
  }),
  fc.array(fc.integer({ min: -4, max: 4 }), { maxLength: 9 }).map((choices) => (model: PackedDriverModel) => {
    for (const choice of choices) model.use(choice);
  }),
  count.map((most) => (model: PackedDriverModel) => model.reclaim(most)),
  count.map((most) => (model: PackedDriverModel) => model.reclaim(most, true)),
  fc.constantFrom('always' as const, 'never' as const, 0, 1, 2, 5).map((when) => (model: PackedDriverModel) => {
    model.wantKicks(when);
  }),
  fc.boolean().map((on) => (model: PackedDriverModel) => model.calls(on)),
);

for (const eventIndex of [false, true]) {
  for (const indirect of [false, true]) {
    test(`random steps, chains used out of order (event index ${eventIndex}, indirect ${indirect})`, () => {
      fc.assert(
        fc.property(
          fc.constantFrom(1, 3, 4, 7, 16, 23),
          fc.nat(),
          fc.boolean(),
          fc.array(anyStep, { minLength: 10, maxLength: 120 }),
          (size, from, wrap, sequence) => {
            using ring = new SmallPackedRing({ size, eventIndex, indirect, offset: from % size, wrap });
            const model = new PackedDriverModel(ring);
            for (const step of sequence) {
              step(model);
              model.check();
            }
            model.drain();
          },
        ),
        { numRuns: full ? 2000 : 150 },
      );
    });
  }
}

test('a ring of 32768, the largest there is, all round and with every descriptor in flight', () => {
  using ring = new SmallPackedRing({ size: 32_768, eventIndex: true, indirect: false });
  const { driver, device } = ring;
  const handles = new Uint32Array(32_768);
  const out = new Uint32Array(32_768);
  const lengths = new Uint32Array(32_768);
  for (let round = 0; round < 3; round++) {
    device.wantKicks({ ...device.available, offset: 32_767 });
    assert.is(postBuffers(driver, ring.pool, handles, 0, 32_768), 32_768);
    assert.is(driver.needsKick(), true, 'the last one is asked for');
    assert.is(driver.free, 0);
    for (let chain = 0; chain < 32_768; chain++) {
      device.write(device.flags(chain) === 0 ? 0 : chain, chain % 200, 1);
    }
    assert.is(reclaim(driver, out, lengths, 0, 32_768), 32_768, driver.broken);
    assert.is(lengths[32_767], 32_767 % 200);
    assert.is(driver.free, 32_768);
    device.available = { ...device.used };
  }
});

test('more is posted than twice the ring between two looks at a kick: the device is woken all the same', () => {
  using ring = new SmallPackedRing({ size: 4, eventIndex: true, indirect: false });
  const { driver, device } = ring;
  const handles = Uint32Array.of(0, 1, 2, 3);
  const out = new Uint32Array(4);
  device.wantKicks({ offset: 0, wrap: true });
  for (let round = 0; round < 2; round++) {
    for (const handle of handles) ring.setPacket(handle, 1);
    assert.is(driver.postPackets(handles, 0, 4), 4);
    if (round === 1) break;
    for (let chain = 0; chain < 4; chain++) device.use(device.take()!, 0);
    assert.is(reclaimSent(driver, ring.pool, out, 4), 4);
  }
  assert.is(driver.position, 0x8000, 'where it was');
  assert.is(driver.needsKick(), true);
  assert.is(driver.needsKick(), false);
});

test('reclaimAll gives back every chain once, used or not, and ends the ring', () => {
  using ring = new SmallPackedRing({ size: 5, eventIndex: false, indirect: false });
  const { driver, device } = ring;
  const out = new Uint32Array(8);
  const lengths = new Uint32Array(8);
  ring.setPacket(4, 2);
  ring.setPacket(6, 1);
  assert.is(driver.postPackets(Uint32Array.of(4, 6), 0, 2), 2);
  assert.is(postBuffers(driver, ring.pool, Uint32Array.of(9), 0, 1), 1);
  device.use(device.take()!, 0);
  const count = driver.reclaimAll(out);
  assert.equal([...out.subarray(0, count)].sort(), [4, 6, 9]);
  assert.is(driver.inFlight, 0);
  assert.is(driver.reclaimAll(out), 0);
  assert.is(postBuffers(driver, ring.pool, out, 0, 1), 0);
  assert.is(reclaim(driver, out, lengths, 0, 4), 0);
  assert.is(driver.hasUsed(), false);
  assert.is(driver.needsKick(), false);
});

test.run();
