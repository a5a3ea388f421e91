/** How a port brings a device up, over the emulated PCI function, access by access (spec-D1 to D9, D16, D17, D19, D21). */

import { setTimeout as delay } from 'node:timers/promises';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { DeviceThread } from '../../driver/backend/device-thread.js';
import type { EmulatedFaults } from '../../driver/backend/emulated-faults.js';
import { EmulatedPciFunction } from '../../driver/backend/emulated-pci-function.js';
import { NetDevice } from '../../driver/backend/net-device.js';
import { echoPort } from '../../driver/backend/ports/built-in.js';
import { ErrorCode, type VirtioError } from '../../driver/errors.js';
import { Port } from '../../driver/net/port.js';
import type { PortOptions } from '../../driver/net/port-options.js';
import { Feature, FeatureSet, featureName } from '../../driver/spec/features.js';
import { virtioPciCommonCfg } from '../../driver/spec/pci.js';
import { describeStatus, Status } from '../../driver/spec/status.js';
import { PciModernTransport } from '../../driver/transport/pci-modern.js';
import { FakeDeviceModel, fakeOffered } from '../support/fake-device-model.js';
import { RegisterLog } from '../support/register-log.js';

const test = suite('bring-up of a port');
const { ACKNOWLEDGE, DRIVER, FEATURES_OK, DRIVER_OK, FAILED } = Status;
const STATUS_AT = virtioPciCommonCfg.fields.device_status.offset;

interface BroughtUp {
  readonly port: Port;
  readonly fn: EmulatedPciFunction;
  readonly log: RegisterLog;
  readonly device: FakeDeviceModel;
}

/** Runs a body with a port over a device that only records; the port is closed at the end. */
async function withPort(
  options: PortOptions,
  body: (all: BroughtUp) => Promise<void>,
  { faults, offered }: { faults?: EmulatedFaults; offered?: FeatureSet } = {},
): Promise<void> {
  const log = new RegisterLog();
  const recording = log.faults;
  const both: EmulatedFaults = {
    ...recording,
    onRead: (region, offset, value, bytes) => {
      const answer = faults?.onRead?.(region, offset, value, bytes) ?? value;
      return recording.onRead!(region, offset, answer, bytes);
    },
    onWrite: (region, offset, value, bytes) => {
      recording.onWrite!(region, offset, value, bytes);
      return faults?.onWrite === undefined ? value : faults.onWrite(region, offset, value, bytes);
    },
  };
  const device = new FakeDeviceModel(offered === undefined ? {} : { offered });
  const fn = new EmulatedPciFunction(device, { faults: both });
  const port = new Port(PciModernTransport.open(fn), { ringSize: 64, pages: '4K', ...options });
  try {
    await body({ port, fn, log, device });
  } finally {
    await port.close();
    await fn.closed;
  }
}

async function failure(promise: Promise<unknown>): Promise<VirtioError> {
  try {
    await promise;
  } catch (error) {
    return error as VirtioError;
  }
  assert.unreachable('it must fail');
  throw new Error();
}

/** Values written to a register, in order. */
const written = (log: RegisterLog, register: string): number[] =>
  log.accesses.filter((access) => access.kind === 'write' && access.register === register).map(({ value }) => value);

/** Position of the first access of a kind from `from` on. */
function position(log: RegisterLog, kind: 'read' | 'write', register: string, value?: number, from = 0): number {
  const found = log.accesses.findIndex(
    (access, index) =>
      index >= from &&
      access.kind === kind &&
      access.register === register &&
      (value === undefined || access.value === value),
  );
  assert.ok(found >= 0, `no ${kind} of ${register} ${value ?? ''}`);
  return found;
}

const choices: readonly PortOptions[] = [
  {},
  { mergeable: false, indirect: false },
  { eventIndex: true },
  { ringSize: 4 },
  { ringSize: 256, mergeable: false, eventIndex: true },
];

test('a port that runs, stops and starts leaves no violation, whatever it was asked for', async () => {
  const thread = await DeviceThread.start();
  try {
    for (const options of [...choices, { queues: 3 }]) {
      const device = new NetDevice(thread, { port: echoPort(), queuePairs: options.queues ?? 1 });
      const fn = new EmulatedPciFunction(device);
      const port = new Port(PciModernTransport.open(fn), { ringSize: 64, pages: '4K', ...options });
      try {
        for (let round = 0; round < 3; round++) {
          await port.start();
          for (let pair = 0; pair < (options.queues ?? 1); pair++) await exchange(port, pair);
          await port.stop();
        }
      } finally {
        await port.close();
        await fn.closed;
        await device.close();
      }
      assert.equal(fn.violations, [], JSON.stringify(options));
      assert.equal(fn.failures, [], JSON.stringify(options));
    }
  } finally {
    await thread.stop();
  }
});

/** Sends a few packets on a pair and waits until they are back; they are still on their way when more are sent. */
async function exchange(port: Port, pair: number): Promise<void> {
  const [rx, tx] = [port.rxQueue(pair), port.txQueue(pair)];
  const burst = port.burst(16);
  let received = 0;
  const deadline = Date.now() + 10_000;
  for (let sent = 0; received < 50; ) {
    if (sent < 60 && burst.allocate(2) > 0) {
      for (let index = 0; index < burst.count; index++) burst.bytes(index).setLength(64);
      sent += tx.send(burst);
      burst.free();
    }
    received += rx.receive(burst);
    burst.free();
    assert.ok(Date.now() < deadline, `${received} packets came back`);
    await delay(0);
  }
}

for (const options of choices) {
  test(`spec-D1, spec-D2: the order of status, features and queues ${JSON.stringify(options)}`, () =>
    withPort(options, async ({ port, log, fn }) => {
      await port.start();
      assert.equal(
        written(log, 'device_status').map(describeStatus),
        [
          0,
          ACKNOWLEDGE,
          ACKNOWLEDGE | DRIVER,
          ACKNOWLEDGE | DRIVER | FEATURES_OK,
          ACKNOWLEDGE | DRIVER | FEATURES_OK | DRIVER_OK,
        ].map(describeStatus),
      );
      const reset = position(log, 'write', 'device_status', 0);
      const driver = position(log, 'write', 'device_status', ACKNOWLEDGE | DRIVER, reset);
      const offered = position(log, 'read', 'device_feature', undefined, driver);
      const accepted = position(log, 'write', 'driver_feature', undefined, offered);
      const agreed = position(log, 'write', 'device_status', ACKNOWLEDGE | DRIVER | FEATURES_OK, accepted);
      const seen = position(log, 'read', 'device_status', undefined, agreed);
      const queue = position(log, 'write', 'queue_enable', 1, seen);
      position(log, 'write', 'device_status', ACKNOWLEDGE | DRIVER | FEATURES_OK | DRIVER_OK, queue);
      const late = log.accesses
        .slice(agreed)
        .filter(({ kind, register }) => kind === 'write' && register === 'driver_feature');
      assert.equal(late, [], 'no feature after FEATURES_OK');
      const early = log.accesses.slice(0, agreed).filter(({ register }) => register.startsWith('queue_'));
      assert.equal(early, [], 'no queue before FEATURES_OK');
      assert.equal(fn.violations, []);
    }));
}

test('spec-D3: FEATURES_OK that does not stick: FAILED, no queue touched, reset', () =>
  withPort(
    {},
    async ({ port, log, fn }) => {
      const error = await failure(port.start());
      assert.is(error.code, ErrorCode.NEGOTIATION_FAILED);
      assert.equal(
        log.accesses.filter(({ register }) => register.startsWith('queue_')),
        [],
      );
      const statuses = written(log, 'device_status');
      assert.ok(
        statuses.some((status) => (status & FAILED) !== 0),
        statuses.map(describeStatus).join(', '),
      );
      assert.is(statuses.at(-1), 0);
      assert.equal(fn.violations, []);
    },
    {
      faults: {
        onWrite: (region, offset, value) =>
          region === 'common' && offset === STATUS_AT ? value & ~FEATURES_OK : value,
      },
    },
  ));

test('spec-D4: no notification before DRIVER_OK, over stops and starts', () =>
  withPort({}, async ({ port, fn, log }) => {
    for (let round = 0; round < 5; round++) {
      await port.start();
      const [rx, tx] = [port.rxQueue(0), port.txQueue(0)];
      const burst = port.burst(8);
      // Polls while the port stops: a notification then would be seen at the next start.
      const stopping = port.stop();
      for (let turn = 0; turn < 20; turn++) {
        if (burst.allocate(1) > 0) burst.bytes(0).setLength(64);
        tx.send(burst);
        burst.free();
        rx.receive(burst);
        burst.free();
        await delay(0);
      }
      await stopping;
    }
    assert.equal(fn.violations, []);
    const notified = log.accesses.filter(({ region, kind }) => region === 'notify' && kind === 'write');
    assert.equal(notified, [], 'queues are notified through their doorbells');
  }));

test('spec-D6: after a reset nothing is written before the status has read 0', () => {
  let pending = 0;
  return withPort(
    {},
    async ({ port, log, fn }) => {
      for (let round = 0; round < 2; round++) {
        pending = 7;
        await port.start();
        pending = 7;
        await port.stop();
      }
      let awaiting = false;
      for (const { kind, register, value } of log.accesses) {
        if (kind === 'write' && register === 'device_status' && value === 0) awaiting = true;
        else if (kind === 'read' && register === 'device_status' && value === 0) awaiting = false;
        else if (kind === 'write') assert.is(awaiting, false, `${register} was written`);
      }
      assert.equal(fn.violations, []);
    },
    {
      faults: {
        onRead: (region, offset, value) => {
          // The device takes its time: it shows an old status a few times more.
          if (region !== 'common' || offset !== STATUS_AT || value !== 0 || pending === 0) return value;
          pending--;
          return DRIVER_OK;
        },
      },
    },
  );
});

test('spec-D7, spec-D8: what is accepted is offered, wanted and consistent; unknown bits are left alone', async () => {
  const everything = FeatureSet.fromWords([0xffff_ffff, 0xffff_ffff, 0xffff_ffff, 0xffff_ffff]).without(
    Feature.RING_PACKED,
  );
  for (const offered of [
    everything,
    everything.without(Feature.CTRL_VQ),
    FeatureSet.of(Feature.VERSION_1),
    FeatureSet.of(Feature.VERSION_1, Feature.MRG_RXBUF, 77, 100, 127),
    FeatureSet.of(Feature.VERSION_1, Feature.GUEST_TSO4, Feature.HOST_TSO6, Feature.GUEST_ECN),
  ]) {
    await withPort(
      {},
      async ({ port, fn, device }) => {
        await port.start();
        const features = port.features ?? FeatureSet.EMPTY;
        assert.ok(features.isSubsetOf(offered), `${features} of ${offered}`);
        assert.ok(features.has(Feature.VERSION_1), 'spec-D9');
        assert.ok(features.bits.every((number) => number < 64 && number !== Feature.RING_PACKED));
        assert.equal(fn.violations, []);
        assert.ok(device.calls.includes(`setFeatures ${features}`));
      },
      { offered },
    );
  }
});

test('spec-D9: a device without VERSION_1 is refused, with FAILED and a reset', () =>
  withPort(
    {},
    async ({ port, log }) => {
      assert.is((await failure(port.start())).code, ErrorCode.FEATURE_MISSING);
      const statuses = written(log, 'device_status');
      assert.ok(statuses.some((status) => (status & FAILED) !== 0));
      assert.is(statuses.at(-1), 0);
      assert.is(written(log, 'driver_feature').length, 0, 'nothing was accepted');
    },
    { offered: FeatureSet.of(Feature.MAC, Feature.STATUS) },
  ));

for (const options of [...choices, { queues: 2 }]) {
  test(`spec-D16, spec-D17, spec-D19, spec-D21: registers of queues ${JSON.stringify(options)}`, () =>
    withPort(options, async ({ port, log, fn }) => {
      await failureOrNot(port.start());
      const writes = log.accesses.filter(({ kind, region }) => kind === 'write' && region === 'common');
      const readOnly = [
        'device_feature',
        'num_queues',
        'config_generation',
        'queue_notify_off',
        'queue_notif_config_data',
      ];
      for (const { register } of writes) assert.is(readOnly.includes(register), false, `${register} was written`);
      for (const size of written(log, 'queue_size')) assert.ok(size > 0 && (size & (size - 1)) === 0, `size ${size}`);
      assert.ok(written(log, 'queue_enable').every((value) => value === 1));
      let pending = new Set<string>();
      for (const { register, value } of writes) {
        if (register === 'queue_select') pending = new Set();
        else if (/^queue_(desc|driver|device)(\+4)?$/.test(register)) pending.add(register);
        else if (register === 'queue_enable') assert.is(pending.size, 6, 'all addresses before queue_enable');
        if (register === 'queue_desc') assert.is(value % 16, 0);
        if (register === 'queue_driver') assert.is(value % 2, 0);
        if (register === 'queue_device') assert.is(value % 4, 0);
      }
      for (const [index, bell] of log.doorbells.entries()) {
        assert.is(bell.width, 16);
        assert.is(bell.value, index < 2 * (options.queues ?? 1) ? index : bell.value);
      }
      assert.ok(log.doorbells.length >= 2);
      assert.equal(fn.violations, []);
    }));
}

/** With more than one pair the recording device answers no control command, so that the start fails behind DRIVER_OK. */
async function failureOrNot(promise: Promise<unknown>): Promise<void> {
  await promise.catch((error: VirtioError) => assert.is(error.code, ErrorCode.TIMEOUT));
}

test('spec-D7, spec-D8: bits past 63 are read and shown, and none of them is accepted', () =>
  withPort(
    {},
    async ({ port, log }) => {
      await port.start();
      assert.equal(written(log, 'device_feature_select').slice(0, 4), [0, 1, 2, 3], 'all words are read');
      const shown = port.negotiation!.outcomes.filter(({ feature }) => feature >= 64);
      assert.equal(
        shown.map(({ name, offeredBy, accepted }) => [name, offeredBy, accepted]),
        [
          ['RSS_CONTEXT', 'device', false],
          ['OUT_NET_HEADER', 'device', false],
          ['bit 71', 'device', false],
          ['bit 100', 'device', false],
          ['bit 127', 'device', false],
        ],
      );
      assert.ok(port.features!.bits.every((bit) => bit < 64));
      assert.ok(
        written(log, 'driver_feature_select').every((word) => word < 2),
        'nothing to write there',
      );
    },
    { offered: fakeOffered.with(Feature.RSS_CONTEXT, Feature.OUT_NET_HEADER, 71, 100, 127) },
  ));

for (const feature of [Feature.RSS_CONTEXT, Feature.GUEST_UDP_TUNNEL_GSO, Feature.OUT_NET_HEADER, Feature.IPSEC]) {
  test(`spec-D7: ${featureName(feature)} is not driven, and is not accepted on demand either`, () =>
    withPort(
      { demand: [feature] },
      async ({ port, log }) => {
        assert.is((await failure(port.start())).code, ErrorCode.UNSUPPORTED);
        assert.equal(written(log, 'driver_feature'), []);
      },
      { offered: fakeOffered.with(feature) },
    ));
}

test.run();
