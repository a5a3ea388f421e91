/** A hostile, buggy or vanishing device behind the registers: the transport refuses, in bounded time, and closes all the same. */

import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import type { EmulatedFaults } from '../../driver/backend/emulated-faults.js';
import { EmulatedPciFunction } from '../../driver/backend/emulated-pci-function.js';
import { ErrorCode, VirtioError } from '../../driver/errors.js';
import { dropUnmetRequirements, Feature, FeatureSet } from '../../driver/spec/features.js';
import { PciCommand, pciHeader, virtioPciCommonCfg } from '../../driver/spec/pci.js';
import { Status } from '../../driver/spec/status.js';
import type { TransportEvent } from '../../driver/spec/transport.js';
import { PciLegacyTransport } from '../../driver/transport/pci-legacy.js';
import { PciModernTransport } from '../../driver/transport/pci-modern.js';
import {
  bringUp,
  FakeDeviceModel,
  fakeOffered,
  fakeWanted,
  RingPlaces,
  withMemory,
} from '../support/fake-device-model.js';
import { RegisterLog } from '../support/register-log.js';

const test = suite('hostile PCI device');

type RegisterName = keyof typeof virtioPciCommonCfg.fields;

/** A fault that answers for one register of the common configuration. */
const answering =
  (name: RegisterName, answer: (value: number) => number): NonNullable<EmulatedFaults['onRead']> =>
  (region, offset, value) =>
    region === 'common' && offset === virtioPciCommonCfg.fields[name].offset ? answer(value) : value;

interface Bench {
  readonly device: FakeDeviceModel;
  readonly fn: EmulatedPciFunction;
  readonly transport: PciModernTransport;
  readonly log: RegisterLog;
  readonly fd: number;
}

/** Runs a body against a device with faults; at the end both sides must close, whatever happened. */
const against =
  (
    faults: EmulatedFaults,
    body: (bench: Bench) => Promise<void>,
    { offered = fakeOffered, vectors = 3 }: { offered?: FeatureSet; vectors?: number } = {},
  ): (() => Promise<void>) =>
  () =>
    withMemory(async (fd) => {
      const device = new FakeDeviceModel({ offered });
      const log = new RegisterLog();
      const recorder = log.faults;
      const fn = new EmulatedPciFunction(device, {
        vectors,
        faults: {
          ...recorder,
          ...faults,
          onRead: (region, offset, value, bytes) => {
            const answer = faults.onRead?.(region, offset, value, bytes) ?? value;
            return recorder.onRead!(region, offset, answer, bytes);
          },
          onWrite: (region, offset, value, bytes) => {
            recorder.onWrite!(region, offset, value, bytes);
            return faults.onWrite === undefined ? value : faults.onWrite(region, offset, value, bytes);
          },
        },
      });
      const transport = PciModernTransport.open(fn, { resetTimeoutMs: 60 });
      try {
        await body({ device, fn, transport, log, fd });
      } finally {
        await transport.close();
        await transport.close();
        await fn.closed;
      }
    });

async function refusal(promise: Promise<unknown>): Promise<VirtioError> {
  try {
    await promise;
  } catch (error) {
    assert.ok(error instanceof VirtioError, String(error));
    return error;
  }
  return assert.unreachable('was not refused') as never;
}

const isMaster = (fn: EmulatedPciFunction): boolean =>
  (fn.readConfig16(pciHeader.fields.command.offset) & PciCommand.MASTER) !== 0;

for (const count of [0, 1]) {
  test(
    `abuse-D9: ${count} queues are too few for a network device`,
    against({ onRead: answering('num_queues', () => count) }, async ({ transport }) => {
      const error = await refusal(transport.queueCount());
      assert.is(error.code, ErrorCode.DEVICE_BROKEN);
      assert.match(error.message, `has ${count} queues`);
    }),
  );
}

test(
  'abuse-D9: 65535 queues are a number like any other; a queue that is not there is refused',
  against({ onRead: answering('num_queues', () => 65535) }, async ({ transport, fd }) => {
    assert.is(await transport.queueCount(), 65535);
    await bringUp(transport, fd, { queues: [] });
    assert.is(await transport.queueSizeMax(60000), 0);
    const error = await refusal(transport.setUpQueue(60000, new RingPlaces().place(64)));
    assert.is(error.code, ErrorCode.INVALID_ARGUMENT);
  }),
);

test(
  'abuse-D10: a queue of size 0 is not there',
  against({ onRead: answering('queue_size', () => 0) }, async ({ transport, fd, log }) => {
    await bringUp(transport, fd, { queues: [] });
    assert.is(await transport.queueSizeMax(0), 0);
    await refusal(transport.setUpQueue(0, new RingPlaces().place(64)));
    assert.not(log.writes.some((write) => write.startsWith('queue_enable')));
  }),
);

for (const size of [32769, 40000, 65535]) {
  test(
    `abuse-D10: a queue of size ${size} is refused`,
    against({ onRead: answering('queue_size', () => size) }, async ({ transport, fd }) => {
      await bringUp(transport, fd, { queues: [] });
      assert.is((await refusal(transport.queueSizeMax(0))).code, ErrorCode.DEVICE_BROKEN);
    }),
  );
}

test('abuse-D10: a split queue whose size is no power of two gets a smaller one', () => {
  let written: number | undefined;
  const size = answering('queue_size', () => written ?? 100);
  return against(
    {
      onRead: size,
      onWrite: (region, offset, value) => {
        if (region === 'common' && offset === virtioPciCommonCfg.fields.queue_size.offset) written = value;
        return value;
      },
    },
    async ({ transport, fd, log }) => {
      await bringUp(transport, fd, { queues: [0], size: 256 });
      assert.ok(log.writes.includes('queue_size=0x40'));
      await transport.reset();
      written = undefined;
      await bringUp(transport, fd, {
        queues: [0],
        size: 256,
        wanted: fakeWanted.with(Feature.RING_PACKED),
        share: false,
      });
      assert.is(written, 100, 'a packed ring of 100 is as it should be');
    },
  )();
});

test('abuse-D10: the largest size is read once, however often the device changes it', () => {
  let reads = 0;
  return against(
    {
      onRead: answering('queue_size', (value) => {
        reads++;
        return reads === 1 ? 64 : value;
      }),
    },
    async ({ transport }) => {
      await transport.reset();
      assert.equal([await transport.queueSizeMax(0), await transport.queueSizeMax(0)], [64, 64]);
      assert.is(reads, 1);
      await transport.reset();
      assert.is(await transport.queueSizeMax(0), 256);
    },
  )();
});

test(
  'abuse-D10: a device that keeps another size than it was given would write past the ring: refused',
  against({ onRead: answering('queue_size', () => 256) }, async ({ transport, fd, log }) => {
    const error = await refusal(bringUp(transport, fd, { size: 64 }));
    assert.is(error.code, ErrorCode.DEVICE_BROKEN);
    assert.match(error.message, /queue 0 was given size 64 and has 256/);
    assert.not(log.writes.some((write) => write.startsWith('queue_enable')));
  }),
);

test(
  'abuse-D11: FEATURES_OK that does not stick ends in FAILED and a reset, no queue touched',
  against(
    { onRead: answering('device_status', (value) => value & ~Status.FEATURES_OK) },
    async ({ transport, fd, log }) => {
      await bringUp(transport, fd).then(
        () => assert.unreachable(),
        (error: unknown) => assert.match((error as Error).message, /FEATURES_OK did not stick/),
      );
      const statuses = log.writes.filter((write) => write.startsWith('device_status='));
      assert.match(statuses.at(-2)!, /=0x8[0-9a-f]$/, 'FAILED');
      assert.is(statuses.at(-1), 'device_status=0x0');
      assert.not(log.writes.some((write) => write.startsWith('queue_')));
    },
  ),
);

test(
  'abuse-D11: a device without VERSION_1 is seen as such, and left reset',
  against(
    {},
    async ({ transport, fd, log }) => {
      await bringUp(transport, fd).then(
        () => assert.unreachable(),
        (error: unknown) => assert.match((error as Error).message, /VERSION_1/),
      );
      assert.is(log.writes.at(-1), 'device_status=0x0');
    },
    { offered: FeatureSet.of(Feature.MAC) },
  ),
);

test('abuse-D11: features that change between two readings are refused before any is accepted', () => {
  let select = 0;
  let readings = 0;
  return against(
    {
      onWrite: (region, offset, value) => {
        if (region === 'common' && offset === 0) select = value;
        return value;
      },
      onRead: answering('device_feature', (value) => (select === 0 && readings++ > 0 ? value | 1 : value)),
    },
    async ({ transport, fd, log }) => {
      const error = await refusal(bringUp(transport, fd));
      assert.is(error.code, ErrorCode.DEVICE_BROKEN);
      assert.match(error.message, /changed between two readings/);
      assert.not(log.writes.some((write) => write.startsWith('driver_feature=')));
    },
  )();
});

for (const bits of [
  [Feature.MQ],
  [Feature.HOST_TSO4],
  [Feature.GUEST_TSO6],
  [Feature.RSS],
  [Feature.HOST_ECN, Feature.HOST_TSO4],
]) {
  const offered = FeatureSet.of(Feature.VERSION_1, ...bits);
  test(
    `abuse-D12: ${offered} is not consistent: what lacks its requirement is dropped, the rest is accepted`,
    against(
      {},
      async ({ transport, fd, fn }) => {
        const { features, dropped } = dropUnmetRequirements((await transport.offered()).device);
        assert.equal([...dropped.keys()].sort(), [...bits].sort());
        await bringUp(transport, fd, { wanted: features });
        assert.equal(fn.violations, []);
      },
      { offered },
    ),
  );
}

test(
  'abuse-D14: a reset that never ends is an error in bounded time, DMA stays off, and close works',
  against({ onRead: answering('device_status', (value) => value | 1) }, async ({ transport, fn }) => {
    const error = await refusal(transport.reset());
    assert.is(error.code, ErrorCode.TIMEOUT);
    assert.match(error.message, /did not end in 60 ms/);
    assert.match(error.requirement!, /§4\.1\.4\.3\.2/);
    assert.not(isMaster(fn));
  }),
);

test(
  'abuse-D14: nor does a queue reset wait for ever',
  against({ onRead: answering('queue_reset', () => 1) }, async ({ transport, fd }) => {
    await bringUp(transport, fd, { wanted: fakeWanted.with(Feature.RING_RESET) });
    assert.is((await refusal(transport.resetQueue(1))).code, ErrorCode.TIMEOUT);
  }),
);

test('abuse-D14: three seconds unless told otherwise', async () => {
  let clock = 0;
  const device = new FakeDeviceModel();
  const fn = new EmulatedPciFunction(device, {
    faults: { onRead: answering('device_status', (value) => value | 1) },
  });
  const transport = PciModernTransport.open(fn, { now: () => (clock += 500) });
  const error = await refusal(transport.reset());
  assert.match(error.message, /did not end in 3000 ms/);
  assert.ok(clock >= 3000 && clock <= 5000, `gave up after ${clock} ms`);
  await transport.close();
  await fn.closed;
});

for (const kind of ['modern', 'legacy'] as const) {
  for (const what of ['its registers', 'its configuration space alone']) {
    test(`abuse-D16: a reset that finds the device gone, by ${what}, lets nothing into memory (${kind})`, async () => {
      let isGone = false;
      const onRead: EmulatedFaults['onRead'] = (region, offset, value) => {
        if (!isGone) return value;
        const isVendor = region === 'config' && offset === pciHeader.fields.vendor_id.offset;
        const isShown = what === 'its registers' ? region === 'common' || region === 'legacy' : isVendor;
        return isShown ? 0xffff_ffff : value;
      };
      const fn = new EmulatedPciFunction(new FakeDeviceModel(), { kind, faults: { onRead } });
      const transport =
        kind === 'modern'
          ? PciModernTransport.open(fn, { resetTimeoutMs: 60 })
          : PciLegacyTransport.open(fn, { resetTimeoutMs: 60 });
      await transport.reset();
      assert.ok(isMaster(fn));
      isGone = true;
      assert.is((await refusal(transport.reset())).code, ErrorCode.PEER_GONE);
      assert.not(isMaster(fn));
      isGone = false;
      await transport.reset();
      assert.ok(isMaster(fn), 'one that is there again is driven again');
      await transport.close();
      await fn.closed;
    });
  }

  test(`what cannot be turned off keeps nothing else open: ${kind}`, async () => {
    const fn = new EmulatedPciFunction(new FakeDeviceModel(), { kind });
    const transport = kind === 'modern' ? PciModernTransport.open(fn) : PciLegacyTransport.open(fn);
    await transport.reset();
    await transport.requestInterrupts([]);
    const { disableInterrupts } = fn;
    fn.disableInterrupts = () => {
      disableInterrupts.call(fn);
      throw new VirtioError(ErrorCode.IO, 'not off');
    };
    assert.is((await refusal(transport.close())).code, ErrorCode.IO);
    const command = new DataView(fn.configSpace.buffer).getUint16(pciHeader.fields.command.offset, true);
    assert.is(command & PciCommand.MASTER, 0, 'no DMA any more');
    await fn.closed;
  });
}

test('abuse-D16: unplugged at any access of a bring-up: PEER_GONE, never a hang, and close works', async () => {
  let isOver = false;
  let refusals = 0;
  for (let last = 0; !isOver && last < 1000; last++) {
    await withMemory(async (fd) => {
      let accesses = 0;
      const isGone = (): boolean => accesses++ >= last;
      const fn = new EmulatedPciFunction(new FakeDeviceModel(), {
        faults: {
          onRead: (_region, _offset, value) => (isGone() ? 0xffff_ffff : value),
          onWrite: (_region, _offset, value) => (isGone() ? undefined : value),
        },
      });
      let transport: PciModernTransport | undefined;
      try {
        transport = PciModernTransport.open(fn, { resetTimeoutMs: 2000 });
        transport.enableInterrupts(2);
        await bringUp(transport, fd, { wanted: fakeWanted.with(Feature.RING_RESET) });
        transport.mapConfigVector(1);
        await transport.readConfig(0, 8);
        await transport.queueCount();
        await transport.resetQueue(1);
        isOver = accesses <= last;
        const events: TransportEvent[] = [];
        transport.onEvent = (event) => events.push(event);
        accesses = last;
        transport.checkEvents();
        transport.checkEvents();
        assert.equal(
          events.map(({ type }) => type),
          ['gone'],
          'told once',
        );
      } catch (error) {
        assert.ok(error instanceof VirtioError, `after ${last} accesses: ${error}`);
        // While it is opened, a list of capabilities that turns into ones half-way is just broken.
        const codes: string[] = transport === undefined ? ['PEER_GONE', 'DEVICE_BROKEN', 'WRONG_KIND'] : ['PEER_GONE'];
        assert.ok(codes.includes(error.code), `after ${last} accesses: ${error.toLine()}`);
        refusals++;
      } finally {
        await transport?.close();
        fn.close();
        await fn.closed;
      }
    });
  }
  assert.ok(isOver && refusals > 100, `${refusals} places`);
});

test('abuse-D17: a generation that never stands still: a bounded number of readings, then refused', () => {
  let generation = 0;
  let readings = 0;
  return against(
    {
      onRead: answering('config_generation', () => {
        readings++;
        return generation++ & 0x7f;
      }),
    },
    async ({ transport }) => {
      const error = await refusal(transport.readConfig(0, 6));
      assert.is(error.code, ErrorCode.DEVICE_BROKEN);
      assert.match(error.message, /config_generation does not stand still/);
      assert.is(readings, 200);
    },
  )();
});

test(
  'abuse-D20: a status that flaps a thousand times between two looks is one event',
  against({}, async ({ transport, device, fd }) => {
    await bringUp(transport, fd);
    await transport.readConfig(6, 2);
    const events: string[] = [];
    transport.onEvent = ({ type }) => events.push(type);
    transport.checkEvents();
    assert.equal(events, []);
    for (let flap = 0; flap < 1001; flap++) device.config[6] = flap & 1;
    device.config[6] = 0;
    transport.checkEvents();
    assert.equal(events, ['config']);
    transport.checkEvents();
    assert.equal(events, ['config'], 'and once');
  }),
);

test(
  'abuse-D20: without MAC and STATUS nothing of configuration is touched to look for events',
  against(
    {},
    async ({ transport, fd, fn, log }) => {
      await bringUp(transport, fd, { wanted: FeatureSet.of(Feature.VERSION_1) });
      transport.checkEvents();
      assert.not(log.accesses.some(({ region }) => region === 'device'));
      assert.equal(fn.violations, []);
    },
    { offered: FeatureSet.of(Feature.VERSION_1) },
  ),
);

test(
  'abuse-D21: without MSI-X polling works, and interrupts are UNSUPPORTED',
  against(
    {},
    async ({ transport, fd, fn }) => {
      await bringUp(transport, fd);
      assert.throws(
        () => transport.enableInterrupts(1),
        (error: unknown) => error instanceof VirtioError && error.code === ErrorCode.UNSUPPORTED,
      );
      assert.equal(fn.violations, []);
    },
    { vectors: 0 },
  ),
);

test(
  'abuse-D21: fewer vectors than asked for are UNSUPPORTED, the ones there are can be had',
  against({}, async ({ transport }) => {
    assert.throws(
      () => transport.enableInterrupts(4),
      (error: unknown) => error instanceof VirtioError && error.code === ErrorCode.UNSUPPORTED && error.value === 3,
    );
    assert.is(transport.enableInterrupts(3).length, 3);
  }),
);

test(
  'abuse-D21: a vector that reads back NO_VECTOR was not mapped: UNSUPPORTED, and polling goes on',
  against({ onRead: answering('queue_msix_vector', () => 0xffff) }, async ({ transport, fd }) => {
    transport.enableInterrupts(3);
    await transport.reset();
    assert.throws(
      () => transport.mapQueueVector(0, 1),
      (error: unknown) => error instanceof VirtioError && error.code === ErrorCode.UNSUPPORTED,
    );
    await bringUp(transport, fd);
  }),
);

test.run();
