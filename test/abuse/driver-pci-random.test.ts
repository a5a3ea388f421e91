/** A device that answers at random: whatever it says, the driver ends in bounded time with an error of its own, inside the BARs. */

import fc from 'fast-check';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import type { EmulatedFaults } from '../../driver/backend/emulated-faults.js';
import { EmulatedPciFunction } from '../../driver/backend/emulated-pci-function.js';
import { VirtioError } from '../../driver/errors.js';
import { Feature } from '../../driver/spec/features.js';
import type { Bar } from '../../driver/spec/pci-function.js';
import { PciModernTransport } from '../../driver/transport/pci-modern.js';
import { bringUp, FakeDeviceModel, fakeWanted, withMemory } from '../support/fake-device-model.js';

export const fullTimeBoundSeconds = 3600;

const test = suite('random PCI device');
const RUNS = process.env['VIRTIO_PMD_FULL'] === undefined ? 1500 : 200_000;
/** Accesses that a driver may need to find out: a few for each register, 100 readings of all configuration, a wait of 5 ms. */
const ACCESSES_MAX = 20_000;

/** A generator of 32-bit numbers (mulberry32). */
function random(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return (mixed ^ (mixed >>> 14)) >>> 0;
  };
}

/** Values that break things more often than others do. */
const telling = [
  0, 1, 2, 3, 6, 7, 0x40, 0x7f, 0x80, 0xff, 0x100, 0x7fff, 0x8000, 0x8001, 0xffff, 0x7fff_ffff, 0xffff_ffff,
];

interface Outcome {
  readonly end: string;
  readonly accesses: number;
  readonly outside: readonly string[];
}

/** Drives a device that gives a wrong answer once in `rarity` reads of the given kind. */
function drive(seed: number, rarity: number, kind: 'config' | 'registers' | 'both'): Promise<Outcome> {
  return withMemory(async (fd) => {
    const next = random(seed);
    const outside: string[] = [];
    let accesses = 0;
    const faults: EmulatedFaults = {
      onRead: (region, _offset, value) => {
        accesses++;
        const isKind = kind === 'both' || (kind === 'config') === (region === 'config');
        if (!isKind || next() % rarity !== 0) return value;
        const what = next();
        return what % 2 === 0 ? telling[next() % telling.length]! : next();
      },
      onBar: (_index, bar) => (bar === undefined ? undefined : watched(bar, outside)),
    };
    const fn = new EmulatedPciFunction(new FakeDeviceModel(), { faults });
    let transport: PciModernTransport | undefined;
    let end = 'up';
    try {
      transport = PciModernTransport.open(fn, { resetTimeoutMs: 5 });
      transport.enableInterrupts(2);
      await bringUp(transport, fd, { wanted: fakeWanted.with(Feature.RING_RESET) });
      transport.mapConfigVector(1);
      transport.mapQueueVector(0, 0);
      await transport.readConfig(0, 12);
      await transport.queueCount();
      await transport.resetQueue(1);
      transport.checkEvents();
    } catch (error) {
      end = error instanceof VirtioError ? error.code : String(error);
      const isOurs = error instanceof VirtioError || /^Error: (VERSION_1 is not|FEATURES_OK did not)/.test(end);
      if (!isOurs) throw error;
    } finally {
      await transport?.close();
      fn.close();
      await fn.closed;
    }
    return { end, accesses, outside };
  });
}

/** A BAR that notes accesses outside of it. */
function watched(bar: Bar, outside: string[]): Bar {
  const note =
    <A extends readonly unknown[], R>(name: string, call: (...args: A) => R) =>
    (...args: A): R => {
      try {
        return call(...args);
      } catch (error) {
        outside.push(`${name}(${args.join(', ')}): ${error}`);
        throw error;
      }
    };
  return {
    index: bar.index,
    bytes: bar.bytes,
    kind: bar.kind,
    read8: note('read8', (offset) => bar.read8(offset)),
    read16: note('read16', (offset) => bar.read16(offset)),
    read32: note('read32', (offset) => bar.read32(offset)),
    write8: note('write8', (offset, value) => bar.write8(offset, value)),
    write16: note('write16', (offset, value) => bar.write16(offset, value)),
    write32: note('write32', (offset, value) => bar.write32(offset, value)),
    doorbell: note('doorbell', (offset, width, value) => bar.doorbell(offset, width, value)),
  };
}

for (const kind of ['config', 'registers', 'both'] as const) {
  test(`random answers, ${kind}: typed errors, bounded accesses, none outside a BAR`, async () => {
    const ends = new Map<string, number>();
    await fc.assert(
      fc.asyncProperty(fc.integer(), fc.constantFrom(1, 3, 10, 50, 200), async (seed, rarity) => {
        const { end, accesses, outside } = await drive(seed, rarity, kind);
        assert.equal(outside, []);
        assert.ok(accesses < ACCESSES_MAX, `${accesses} accesses`);
        ends.set(end, (ends.get(end) ?? 0) + 1);
      }),
      { numRuns: RUNS },
    );
    assert.ok(ends.size > 3, `the answers were too tame: ${[...ends]}`);
  });
}

test.run();
