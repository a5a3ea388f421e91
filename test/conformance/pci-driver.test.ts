/** The driver's requirements that the PCI transport has to meet, seen from the device: every register access is logged. */

import { setTimeout as delay } from 'node:timers/promises';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { EmulatedPciFunction } from '../../driver/backend/emulated-pci-function.js';
import { ErrorCode, VirtioError } from '../../driver/errors.js';
import { Feature, FeatureSet } from '../../driver/spec/features.js';
import { virtioNetConfig } from '../../driver/spec/net-config.js';
import { NO_VECTOR, PciCommand, PciDeviceId, pciHeader, virtioPciCommonCfg } from '../../driver/spec/pci.js';
import { Status } from '../../driver/spec/status.js';
import { PciModernTransport } from '../../driver/transport/pci-modern.js';
import { iova } from '../../driver/units.js';
import {
  bringUp,
  FakeDeviceModel,
  type FakeDeviceOptions,
  fakeOffered,
  fakeWanted,
  MEMORY_ADDRESS,
  RingPlaces,
  withMemory,
} from '../support/fake-device-model.js';
import { RegisterLog } from '../support/register-log.js';

const test = suite('virtio 1.2, driver over PCI');

interface Bench {
  readonly device: FakeDeviceModel;
  readonly fn: EmulatedPciFunction;
  readonly transport: PciModernTransport;
  readonly log: RegisterLog;
  readonly fd: number;
}

/** Runs a body with a transport over a recording function; nothing against the specification may have been done. */
const onBench =
  (body: (bench: Bench) => Promise<void>, options: FakeDeviceOptions = {}): (() => Promise<void>) =>
  () =>
    withMemory(async (fd) => {
      const device = new FakeDeviceModel(options);
      const log = new RegisterLog();
      const fn = new EmulatedPciFunction(device, { faults: log.faults });
      try {
        const transport = PciModernTransport.open(fn, { resetTimeoutMs: 2000 });
        await body({ device, fn, transport, log, fd });
        assert.equal(fn.violations, []);
        await transport.close();
      } finally {
        fn.close();
        await fn.closed;
      }
    });

const failsWith =
  (code: string) =>
  (error: unknown): boolean =>
    error instanceof VirtioError && error.code === code;
async function rejects(promise: Promise<unknown>, code: string): Promise<void> {
  await promise.then(
    () => assert.unreachable(`was not refused with ${code}`),
    (error: unknown) => assert.ok(failsWith(code)(error), String(error)),
  );
}

const statusWrites = (log: RegisterLog): number[] =>
  log.accesses
    .filter(({ kind, register }) => kind === 'write' && register === 'device_status')
    .map(({ value }) => value);

const { ACKNOWLEDGE, DRIVER, FEATURES_OK, DRIVER_OK } = Status;

test(
  'spec-D1: status 0, ACKNOWLEDGE, DRIVER, features, FEATURES_OK, queues, DRIVER_OK, and each write once',
  onBench(async ({ transport, log, fd }) => {
    await bringUp(transport, fd, { wanted: fakeWanted.with(Feature.CTRL_VQ), queues: [0, 1, 2] });
    const steps = [
      0,
      ACKNOWLEDGE,
      ACKNOWLEDGE | DRIVER,
      ACKNOWLEDGE | DRIVER | FEATURES_OK,
      ACKNOWLEDGE | DRIVER | FEATURES_OK | DRIVER_OK,
    ];
    assert.equal(statusWrites(log), steps);
    const order = log.writes
      .map((write) => write.replace(/=.*/, '').replace(/\+4$/, ''))
      .filter((name, index, all) => name !== all[index - 1]);
    const at = (name: string): number => order.indexOf(name);
    const last = (name: string): number => order.lastIndexOf(name);
    const status = order.flatMap((name, index) => (name === 'device_status' ? [index] : []));
    // Three writes of the status run together in this list: 0, ACKNOWLEDGE, DRIVER; then one each.
    assert.is(status.length, 3, order.join(' '));
    assert.ok(
      status[0]! < at('driver_feature') && last('driver_feature') < status[1]!,
      'features between steps 3 and 5',
    );
    assert.ok(status[1]! < at('queue_desc') && last('queue_enable') < status[2]!, 'queues between steps 6 and 8');
  }),
);

test(
  'spec-D2: no feature after FEATURES_OK, and device configuration is never written',
  onBench(async ({ transport, log, fd }) => {
    await bringUp(transport, fd);
    await transport.readConfig(0, virtioNetConfig.fields.mtu.offset);
    transport.checkEvents();
    assert.not(log.accesses.some(({ kind, region }) => kind === 'write' && region === 'device'));
    const accepted = log.accesses.findIndex(({ register, kind, value }) => {
      return kind === 'write' && register === 'device_status' && (value & FEATURES_OK) !== 0;
    });
    assert.not(log.accesses.slice(accepted).some(({ kind, register }) => kind === 'write' && /feature/.test(register)));
  }),
);

test(
  'spec-D4: no notification before DRIVER_OK: setting a queue up rings nothing',
  onBench(async ({ transport, log, fd }) => {
    await bringUp(transport, fd);
    assert.not(log.accesses.some(({ region }) => region === 'notify'));
  }),
);

test(
  'spec-D5: the transport writes no status but what it is given, and 0 in reset',
  onBench(async ({ transport, log, fd }) => {
    await bringUp(transport, fd, { wanted: fakeWanted.with(Feature.RING_RESET) });
    log.clear();
    await transport.status();
    await transport.offered();
    await transport.readConfig(0, 6);
    await transport.queueSizeMax(1);
    transport.checkEvents();
    await transport.resetQueue(1);
    await transport.setUpQueue(1, new RingPlaces().place(16));
    assert.equal(statusWrites(log), []);
    await transport.setStatus(0x8f);
    await transport.reset();
    assert.equal(statusWrites(log), [0x8f, 0]);
  }),
);

test(
  'spec-D6: after writing 0 nothing is written until the status reads 0, and that is waited for',
  onBench(async ({ device, transport, log, fd }) => {
    await bringUp(transport, fd);
    log.clear();
    const release = device.hold();
    const reset = transport.reset();
    await delay(30);
    const waiting = log.accesses.filter(({ kind }) => kind === 'read');
    assert.ok(waiting.length >= 2, 'it looks again and again');
    assert.equal(log.writes, ['device_status=0x0']);
    release();
    await reset;
    assert.equal(log.writes, ['device_status=0x0']);
    assert.is(log.accesses.at(-1)!.value, 0);
  }),
);

test(
  'spec-D6: DMA is off until the first reset has ended (a device may still run for whoever had it before)',
  onBench(async ({ fn, transport }) => {
    const command = (): number => fn.readConfig16(pciHeader.fields.command.offset) & PciCommand.MASTER;
    assert.is(command(), 0);
    await transport.reset();
    assert.is(command(), PciCommand.MASTER);
    await transport.close();
  }),
);

test(
  'spec-D7: a feature that is not offered is not written',
  onBench(async ({ transport, log }) => {
    await transport.reset();
    log.clear();
    await rejects(transport.accept(FeatureSet.of(Feature.VERSION_1, Feature.EVENT_IDX)), ErrorCode.FEATURE_MISSING);
    assert.not(log.writes.some((write) => write.startsWith('driver_feature=')));
  }),
);

test(
  'spec-D8: offered bits without a name, and past 63, are shown and harm nothing',
  onBench(
    async ({ transport, fd }) => {
      assert.ok((await transport.offered()).device.equals(FeatureSet.of(Feature.VERSION_1, 42, 77, 127)));
      await bringUp(transport, fd);
    },
    { offered: FeatureSet.of(Feature.VERSION_1, 42, 77, 127) },
  ),
);

test(
  'spec-D9: VERSION_1 and bits past 63 arrive where they were written',
  onBench(
    async ({ device, transport, fd, fn }) => {
      const wanted = FeatureSet.of(Feature.VERSION_1, Feature.OUT_NET_HEADER);
      await bringUp(transport, fd, { wanted });
      await fn.idle;
      assert.is(device.calls[0], `setFeatures ${wanted}`);
    },
    { offered: FeatureSet.of(Feature.VERSION_1, Feature.OUT_NET_HEADER) },
  ),
);

test('spec-D11: configuration is read again until the generation stands still', () =>
  withMemory(async () => {
    const device = new FakeDeviceModel();
    let changes = 0;
    let reads = 0;
    const fn = new EmulatedPciFunction(device, {
      faults: {
        onRead: (region, offset, value) => {
          // The address changes in the middle of its reading, three times.
          if (region === 'device' && offset === 3 && changes < 3) device.config.fill(++changes, 0, 6);
          if (region === 'device') reads++;
          return value;
        },
      },
    });
    const transport = PciModernTransport.open(fn);
    const mac = await transport.readConfig(0, 6);
    assert.equal([...mac], [3, 3, 3, 3, 3, 3], 'no mixture of two addresses');
    assert.is(reads, 4 * 6);
    assert.equal(fn.violations, []);
    await transport.close();
    await fn.closed;
  }));

test('spec-D12: a configuration longer than known is fine, one too short for a field is refused', async () => {
  for (const [length, isFine] of [
    [4096, true],
    [8, true],
    [6, false],
  ] as const) {
    const device = new FakeDeviceModel();
    Object.defineProperty(device, 'config', { value: new Uint8Array(length) });
    const fn = new EmulatedPciFunction(device);
    const transport = PciModernTransport.open(fn);
    const { status } = virtioNetConfig.fields;
    if (isFine) assert.equal([...(await transport.readConfig(status.offset, status.bytes))], [0, 0]);
    else await rejects(transport.readConfig(status.offset, status.bytes), ErrorCode.DEVICE_BROKEN);
    await transport.close();
    await fn.closed;
  }
});

test(
  'spec-D13: every access has the width of its field, 64-bit fields are two of 32 bits, low half first',
  onBench(
    async ({ transport, log, fd }) => {
      transport.enableInterrupts(2);
      await bringUp(transport, fd, { wanted: fakeWanted.with(Feature.RING_RESET) });
      transport.mapConfigVector(1);
      transport.mapQueueVector(1, 0);
      await transport.queueCount();
      await transport.readConfig(0, virtioNetConfig.bytes);
      await transport.readConfig(3, 9);
      await transport.resetQueue(0);
      transport.checkEvents();
      const layouts = { common: virtioPciCommonCfg, device: virtioNetConfig } as const;
      const seen = new Set<string>();
      for (const { region, offset, bytes, register } of log.accesses) {
        if (region !== 'common' && region !== 'device') continue;
        const field = layouts[region].order.find((each) => offset >= each.offset && offset < each.offset + each.bytes)!;
        const width = field.type.name === 'bytes' ? 1 : Math.min(field.bytes, 4);
        assert.is(bytes, width, register);
        assert.is(offset % width, 0, register);
        seen.add(`${region}.${field.name}`);
      }
      const addresses = log.writes
        .filter((write) => write.startsWith('queue_d'))
        .map((write) => write.replace(/=.*/, ''));
      assert.equal(addresses.slice(0, 6), [
        'queue_desc',
        'queue_desc+4',
        'queue_driver',
        'queue_driver+4',
        'queue_device',
        'queue_device+4',
      ]);
      // Everything but the administration queue and what only NOTIF_CONFIG_DATA brings was accessed at all.
      assert.is(seen.size, virtioPciCommonCfg.order.length - 3 + virtioNetConfig.order.length, [...seen].join(' '));
    },
    {
      offered: fakeOffered.with(
        Feature.MTU,
        Feature.SPEED_DUPLEX,
        Feature.RSS,
        Feature.HASH_REPORT,
        Feature.HASH_TUNNEL,
      ),
    },
  ),
);

test('spec-D15: vendor 1af4, device 1000 or 1041, any revision; nothing else', async () => {
  const opens = (vendor: number, device: number, revision: number): boolean => {
    const fn = new EmulatedPciFunction(new FakeDeviceModel());
    const view = new DataView(fn.configSpace.buffer);
    pciHeader.write(view, { vendor_id: vendor, device_id: device, revision_id: revision });
    try {
      PciModernTransport.open(fn);
      return true;
    } catch (error) {
      assert.ok(failsWith(ErrorCode.WRONG_KIND)(error), String(error));
      return false;
    } finally {
      fn.close();
    }
  };
  for (const revision of [0, 1, 0xff]) {
    assert.ok(opens(0x1af4, PciDeviceId.NET, revision));
    assert.ok(opens(0x1af4, PciDeviceId.NET_TRANSITIONAL, revision));
  }
  assert.not(opens(0x1af4, 0x1042, 1));
  assert.not(opens(0x1af4, 0x1001, 0));
  assert.not(opens(0x8086, PciDeviceId.NET, 1));
});

test(
  'spec-D16: no read-only register is ever written',
  onBench(async ({ transport, log, fd }) => {
    transport.enableInterrupts(2);
    await bringUp(transport, fd, { wanted: fakeWanted.with(Feature.RING_RESET) });
    transport.mapConfigVector(0);
    await transport.readConfig(0, 8);
    await transport.resetQueue(1);
    transport.checkEvents();
    await transport.reset();
    const readOnly = virtioPciCommonCfg.order.filter(({ access }) => access === 'ro').map(({ name }) => name);
    assert.equal(readOnly, [
      'device_feature',
      'num_queues',
      'config_generation',
      'queue_notify_off',
      'queue_notif_config_data',
      'admin_queue_index',
      'admin_queue_num',
    ]);
    for (const { kind, register } of log.accesses)
      assert.not(kind === 'write' && readOnly.includes(register), register);
  }),
);

test(
  'spec-D17: a queue is selected, sized, addressed, and enabled last; queue_enable is never given 0',
  onBench(async ({ transport, log, fd }) => {
    await bringUp(transport, fd, { queues: [] });
    // bringUp went live without queues; this looks at the writes alone.
    await transport.reset();
    await transport.setStatus(ACKNOWLEDGE);
    await transport.setStatus(ACKNOWLEDGE | DRIVER);
    await transport.accept(fakeWanted);
    await transport.setStatus(ACKNOWLEDGE | DRIVER | FEATURES_OK);
    const addresses = { ...new RingPlaces().place(128), desc: iova(0xfedc_ba98_7654_3210n) };
    log.clear();
    await transport.setUpQueue(1, addresses);
    assert.equal(log.writes, [
      'queue_select=0x1',
      'queue_select=0x1',
      'queue_size=0x80',
      'queue_desc=0x76543210',
      'queue_desc+4=0xfedcba98',
      `queue_driver=0x${(addresses.driver & 0xffff_ffffn).toString(16)}`,
      'queue_driver+4=0x1',
      `queue_device=0x${(addresses.device & 0xffff_ffffn).toString(16)}`,
      'queue_device+4=0x1',
      'queue_enable=0x1',
    ]);
    log.clear();
    await transport.setUpQueue(0, new RingPlaces().place(256));
    assert.ok(log.writes.includes('queue_size=0x100'), 'the largest size, too, which is there already');
  }),
);

test(
  'spec-D17: sizes that the specification forbids are not written',
  onBench(async ({ transport, log, fd }) => {
    await bringUp(transport, fd, { queues: [] });
    const place = new RingPlaces().place(64);
    log.clear();
    for (const size of [0, 100, 512, 65536, 1.5, -1]) {
      await rejects(transport.setUpQueue(0, { ...place, size }), ErrorCode.INVALID_ARGUMENT);
    }
    assert.not(log.writes.some((write) => !write.startsWith('queue_select')));
    await transport.reset();
    await bringUp(transport, fd, { queues: [], wanted: fakeWanted.with(Feature.RING_PACKED), share: false });
    await rejects(transport.setUpQueue(0, { ...place, size: 0 }), ErrorCode.INVALID_ARGUMENT);
  }),
);

test(
  'spec-D18: a queue reset is over when queue_reset reads 0; setting up again is a full set-up',
  onBench(async ({ device, fn, transport, log, fd }) => {
    await bringUp(transport, fd, { wanted: fakeWanted.with(Feature.RING_RESET) });
    await fn.idle;
    log.clear();
    const release = device.hold();
    const reset = transport.resetQueue(1);
    await delay(20);
    assert.equal([...new Set(log.writes)], ['queue_select=0x1', 'queue_reset=0x1']);
    release();
    await reset;
    assert.is(log.accesses.at(-1)!.register, 'queue_reset');
    assert.is(log.accesses.at(-1)!.value, 0);
    log.clear();
    await transport.setUpQueue(1, new RingPlaces().place(32));
    const names = log.writes.map((write) => write.replace(/=.*/, ''));
    for (const name of ['queue_size', 'queue_desc', 'queue_driver', 'queue_device'])
      assert.ok(names.includes(name), name);
    assert.is(names.at(-1), 'queue_enable');
  }),
);

test(
  'spec-D18: without RING_RESET no queue is reset',
  onBench(async ({ transport, log, fd }) => {
    await bringUp(transport, fd);
    log.clear();
    await rejects(transport.resetQueue(0), ErrorCode.UNSUPPORTED);
    assert.equal(log.writes, []);
  }),
);

for (const [name, extra, expected] of [
  ['16 bits, the index', [], { width: 16, value: 1 }],
  ['32 bits with NOTIFICATION_DATA', [Feature.NOTIFICATION_DATA], { width: 32, value: 1 }],
  ['queue_notif_config_data with NOTIF_CONFIG_DATA', [Feature.NOTIF_CONFIG_DATA], { width: 16, value: 0x4e01 }],
] as const) {
  test(`spec-D19: a notification has ${name}`, () =>
    withMemory(async (fd) => {
      const offered = fakeOffered.with(Feature.NOTIFICATION_DATA, Feature.NOTIF_CONFIG_DATA);
      const log = new RegisterLog();
      // This device names queues otherwise than by index.
      const fn = new EmulatedPciFunction(new FakeDeviceModel({ offered }), { faults: log.faults });
      const transport = PciModernTransport.open(fn);
      await bringUp(transport, fd, { wanted: fakeWanted.with(...extra) });
      const { bar, offset, width, value } = log.doorbells[1]!;
      assert.equal({ bar, offset, width, value }, { bar: 4, offset: 0x3000 + 4, ...expected });
      assert.equal(fn.violations, []);
      fn.close();
      await fn.closed;
    }));
}

test(
  'spec-D20: a vector is mapped, and read back',
  onBench(async ({ transport, log }) => {
    await transport.reset();
    transport.enableInterrupts(3);
    log.clear();
    transport.mapConfigVector(2);
    transport.mapQueueVector(1, 0);
    assert.equal(
      log.accesses.map(({ kind, register, value }) => `${kind} ${register} ${value}`),
      [
        'write config_msix_vector 2',
        'read config_msix_vector 2',
        'write queue_select 1',
        'write queue_msix_vector 0',
        'read queue_msix_vector 0',
      ],
    );
    assert.throws(() => transport.mapConfigVector(3), failsWith(ErrorCode.INVALID_ARGUMENT));
    assert.throws(() => transport.mapConfigVector(NO_VECTOR), failsWith(ErrorCode.INVALID_ARGUMENT));
  }),
);

test(
  'spec-D21: parts that are not aligned, or leave the address space, are not given to the device',
  onBench(async ({ transport, log, fd }) => {
    await bringUp(transport, fd, { queues: [] });
    const place = new RingPlaces().place(64);
    log.clear();
    const bad = [
      { desc: iova(MEMORY_ADDRESS + 8n) },
      { driver: iova(MEMORY_ADDRESS + 1n) },
      { device: iova(MEMORY_ADDRESS + 2n) },
      { desc: iova(0xffff_ffff_ffff_fff0n) },
    ];
    for (const part of bad) {
      await rejects(transport.setUpQueue(0, { ...place, ...part }), ErrorCode.INVALID_ARGUMENT);
    }
    assert.not(log.writes.some((write) => !write.startsWith('queue_select')));
    await transport.reset();
    await bringUp(transport, fd, { queues: [], wanted: fakeWanted.with(Feature.RING_PACKED), share: false });
    await rejects(transport.setUpQueue(0, { ...place, driver: iova(MEMORY_ADDRESS + 2n) }), ErrorCode.INVALID_ARGUMENT);
  }),
);

test.run();
