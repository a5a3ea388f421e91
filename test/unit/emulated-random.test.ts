/** A driver that does anything at all to the emulated function: nothing is thrown, and the device model is asked in order. */

import fc from 'fast-check';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { EmulatedPciFunction } from '../../driver/backend/emulated-pci-function.js';
import { Feature, FeatureSet } from '../../driver/spec/features.js';
import { PciCommand, pciHeader, virtioPciCommonCfg } from '../../driver/spec/pci.js';
import type { Bar } from '../../driver/spec/pci-function.js';
import { Status } from '../../driver/spec/status.js';
import { iova } from '../../driver/units.js';
import { FakeDeviceModel, MEMORY_ADDRESS, MEMORY_BYTES, withMemory } from '../support/fake-device-model.js';

const test = suite('driver/backend: the emulated PCI function under a random driver');
const RUNS = process.env['VIRTIO_PMD_FULL'] === undefined ? 400 : 40_000;

const registers = virtioPciCommonCfg.order.flatMap(({ offset, bytes }) =>
  bytes === 8
    ? [
        { offset, bytes: 4 },
        { offset: offset + 4, bytes: 4 },
      ]
    : [{ offset, bytes }],
);

/** Writes that get a device somewhere come often, the others now and then. */
const action = fc.oneof(
  {
    weight: 6,
    arbitrary: fc.record({
      kind: fc.constant('register' as const),
      register: fc.constantFrom(...registers),
      value: fc.oneof(fc.constantFrom(0, 1, 2, 3, 64, 256), fc.nat(0xffff_ffff)),
    }),
  },
  {
    weight: 6,
    arbitrary: fc.record({
      kind: fc.constant('status' as const),
      value: fc.constantFrom(0, 1, 3, 0x0b, 0x0f, 0x8f, 0x40),
    }),
  },
  {
    weight: 2,
    arbitrary: fc.record({
      kind: fc.constant('features' as const),
      word: fc.nat(3),
      value: fc.constantFrom(0, 1, 0x28020),
    }),
  },
  {
    weight: 1,
    arbitrary: fc.record({
      kind: fc.constant('access' as const),
      offset: fc.nat(0x3fff),
      bytes: fc.constantFrom(1, 2, 4),
      value: fc.nat(0xffff_ffff),
    }),
  },
  {
    weight: 1,
    arbitrary: fc.record({ kind: fc.constant('config' as const), offset: fc.nat(127), value: fc.nat(0xffff) }),
  },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant('settle' as const) }) },
  {
    weight: 2,
    arbitrary: fc.record({ kind: fc.constant('bring-up' as const), upTo: fc.constantFrom(1, 3, 5, 6, 8, 8, 8) }),
  },
);

/** The first steps of a bring-up as it should be, with a reset that is waited for. */
async function bringUp(fn: EmulatedPciFunction, bar: Bar, upTo: number): Promise<void> {
  const { fields } = virtioPciCommonCfg;
  const status = (value: number) => () => bar.write8(fields.device_status.offset, value);
  const features = (word: number, value: number): void => {
    bar.write32(fields.driver_feature_select.offset, word);
    bar.write32(fields.driver_feature.offset, value);
  };
  const accepted = FeatureSet.of(Feature.VERSION_1, Feature.RING_RESET);
  const steps = [
    async () => {
      status(0)();
      await fn.idle;
      bar.read8(fields.device_status.offset);
    },
    status(Status.ACKNOWLEDGE),
    status(Status.ACKNOWLEDGE | Status.DRIVER),
    () => {
      for (const word of [0, 1]) features(word, accepted.word(word));
    },
    status(Status.ACKNOWLEDGE | Status.DRIVER | Status.FEATURES_OK),
    () => {
      bar.write16(fields.queue_select.offset, 0);
      for (const { offset } of [fields.queue_desc, fields.queue_driver, fields.queue_device]) {
        bar.write32(offset, 0);
        bar.write32(offset + 4, 1);
      }
      bar.write16(fields.queue_enable.offset, 1);
    },
    status(Status.ACKNOWLEDGE | Status.DRIVER | Status.FEATURES_OK | Status.DRIVER_OK),
    () => fn.idle,
  ];
  for (const step of steps.slice(0, upTo)) await step();
}

test('nothing is thrown; features and memory come before rings, a reset ends all, a ring is not started twice', async () => {
  let starts = 0;
  await fc.assert(
    fc.asyncProperty(fc.array(action, { maxLength: 60, size: 'max' }), (actions) =>
      withMemory(async (fd) => {
        const device = new FakeDeviceModel();
        const fn = new EmulatedPciFunction(device);
        fn.writeConfig16(pciHeader.fields.command.offset, PciCommand.MEMORY | PciCommand.MASTER);
        fn.mapDma(iova(MEMORY_ADDRESS), { fd, fileOffset: 0, bytes: MEMORY_BYTES });
        const bar = fn.bar(4)!;
        const write = (offset: number, bytes: number, value: number): void => {
          if (bytes === 1) bar.write8(offset, value);
          else if (bytes === 2) bar.write16(offset, value);
          else bar.write32(offset, value);
        };
        for (const step of actions) {
          if (step.kind === 'register') write(step.register.offset, step.register.bytes, step.value);
          else if (step.kind === 'status') bar.write8(virtioPciCommonCfg.fields.device_status.offset, step.value);
          else if (step.kind === 'features') {
            bar.write32(virtioPciCommonCfg.fields.driver_feature_select.offset, step.word);
            bar.write32(virtioPciCommonCfg.fields.driver_feature.offset, step.value);
          } else if (step.kind === 'access') {
            const offset = step.offset - (step.offset % step.bytes);
            if (step.bytes === 1) bar.read8(offset);
            else if (step.bytes === 2) bar.read16(offset);
            else bar.read32(offset);
            write(offset, step.bytes, step.value);
          } else if (step.kind === 'config') {
            // Not the command register: a device that decodes nothing is another test.
            if (2 * step.offset !== pciHeader.fields.command.offset) fn.writeConfig16(2 * step.offset, step.value);
          } else if (step.kind === 'bring-up') await bringUp(fn, bar, step.upTo);
          else await fn.idle;
        }
        fn.close();
        await fn.closed;
        assert.equal(fn.failures, []);

        const running = new Set<string>();
        let hasFeatures = false;
        let hasMemory = false;
        for (const [name, what] of device.calls.map((call) => call.split(' ') as [string, string?])) {
          if (name === 'setFeatures') hasFeatures = true;
          else if (name === 'setMemory') hasMemory = true;
          else if (name === 'reset') {
            running.clear();
            hasFeatures = false;
            hasMemory = false;
          } else if (name === 'stopRing') running.delete(what!);
          else if (name === 'startRing') {
            starts++;
            assert.ok(hasFeatures && hasMemory, device.calls.join('; '));
            assert.not(running.has(what!), `ring ${what} was started twice: ${device.calls.join('; ')}`);
            running.add(what!);
          }
        }
        assert.is(running.size, 0, 'the last call is a reset where rings ran');
      }),
    ),
    { numRuns: RUNS },
  );
  assert.ok(starts > RUNS, `rings were started ${starts} times only`);
});

test.run();
