/** Hostile capability lists: the driver refuses the device before it touches a BAR, with an error that says what is wrong. */

import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import type { EmulatedFaults } from '../../driver/backend/emulated-faults.js';
import { EmulatedPciFunction } from '../../driver/backend/emulated-pci-function.js';
import { ErrorCode, VirtioError } from '../../driver/errors.js';
import { findVirtioCapabilities } from '../../driver/pci/capabilities.js';
import { Feature } from '../../driver/spec/features.js';
import {
  PciCapabilityId,
  PciCapType,
  PciCommand,
  pciHeader,
  virtioPciCap,
  virtioPciCap64,
  virtioPciCommonCfg,
  virtioPciNotifyCap,
} from '../../driver/spec/pci.js';
import type { Bar } from '../../driver/spec/pci-function.js';
import { PciLegacyTransport } from '../../driver/transport/pci-legacy.js';
import { PciModernTransport } from '../../driver/transport/pci-modern.js';
import { isComplete } from '../support/driver-abuse.js';
import {
  bringUp,
  FakeDeviceModel,
  fakeOffered,
  fakeWanted,
  RingPlaces,
  withMemory,
} from '../support/fake-device-model.js';
import { RegisterLog } from '../support/register-log.js';

const test = suite('hostile PCI capabilities');

const cap = virtioPciCap.fields;
const POINTER = pciHeader.fields.capabilities_pointer.offset;

type Patch = (fn: EmulatedPciFunction, view: DataView, at: (type: number) => number) => void;

/** A function whose configuration space is patched; everything it is asked for is logged. */
function patched(patch: Patch, faults: EmulatedFaults = {}) {
  const log = new RegisterLog();
  let configReads = 0;
  const fn = new EmulatedPciFunction(new FakeDeviceModel(), {
    faults: {
      ...log.faults,
      onRead: (region, offset, value, bytes) => {
        if (region === 'config') configReads++;
        return log.faults.onRead!(region, offset, value, bytes);
      },
      ...faults,
    },
  });
  const view = new DataView(fn.configSpace.buffer);
  const at = (type: number): number => {
    for (let next = view.getUint8(POINTER); next !== 0; next = view.getUint8(next + cap.cap_next.offset)) {
      if (view.getUint8(next) === PciCapabilityId.VENDOR && view.getUint8(next + cap.cfg_type.offset) === type)
        return next;
    }
    throw new Error(`no capability of type ${type}`);
  };
  patch(fn, view, at);
  return { fn, log, reads: () => configReads };
}

/** Asserts that the device is refused, with this message, and that nothing was done to it. */
async function refused(
  patch: Patch,
  message: RegExp,
  faults?: EmulatedFaults,
  code: ErrorCode = ErrorCode.DEVICE_BROKEN,
): Promise<void> {
  const { fn, log, reads } = patched(patch, faults);
  try {
    PciModernTransport.open(fn);
    assert.unreachable(`was not refused: ${message}`);
  } catch (error) {
    assert.ok(error instanceof VirtioError && error.code === code, String(error));
    assert.match(error.message, message);
    assert.ok(error.message.startsWith('loopback:'), 'says which device');
    isComplete(error);
  }
  assert.equal(log.accesses, [], 'no BAR was touched');
  assert.is(fn.readConfig16(pciHeader.fields.command.offset) & (PciCommand.MEMORY | PciCommand.MASTER), 0);
  assert.ok(reads() < 1000, `${reads()} reads of configuration space`);
  fn.close();
  await fn.closed;
}

const anotherType =
  (type: number): Patch =>
  (_, view, at) =>
    view.setUint8(at(type) + cap.cfg_type.offset, 0x77);

test('abuse-D1: a missing structure is named', async () => {
  await refused(anotherType(PciCapType.COMMON), /the COMMON capability is missing/);
  await refused(anotherType(PciCapType.NOTIFY), /the NOTIFY capability is missing/);
  await refused(anotherType(PciCapType.DEVICE), /the DEVICE capability is missing/);
});

test('abuse-D1: without ISR the device works: polling needs none', () =>
  withMemory(async (fd) => {
    const { fn } = patched(anotherType(PciCapType.ISR));
    const transport = PciModernTransport.open(fn);
    assert.is(transport.structures.isr, undefined);
    await bringUp(transport, fd);
    fn.close();
    await fn.closed;
  }));

test('abuse-D1: no virtio capability, or no list at all', async () => {
  await refused(
    (_, view) => view.setUint8(POINTER, 0),
    /no virtio capability: a legacy device/,
    undefined,
    ErrorCode.UNSUPPORTED,
  );
});

test('abuse-D2: a reserved BAR, an absent one, one of size 0, an I/O BAR', async () => {
  const otherBar =
    (bar: number): Patch =>
    (_, view, at) =>
      view.setUint8(at(PciCapType.COMMON) + cap.bar.offset, bar);
  for (const bar of [6, 7, 0xff]) await refused(otherBar(bar), new RegExp(`no usable COMMON .* reserved BAR ${bar}`));
  for (const bar of [0, 5]) await refused(otherBar(bar), new RegExp(`no usable COMMON .* BAR ${bar} is absent`));
  const bars = (change: (bar: Bar) => Bar): EmulatedFaults => ({
    onBar: (index, bar) => (index === 4 && bar !== undefined ? change(bar) : bar),
  });
  const view = (bar: Bar, change: Partial<Pick<Bar, 'bytes' | 'kind'>>): Bar =>
    new Proxy(bar, { get: (target, name) => Reflect.get(name in change ? change : target, name) });
  await refused(
    () => {},
    /no usable COMMON .* BAR 4 is absent/,
    bars((bar) => view(bar, { bytes: 0 })),
  );
  await refused(
    () => {},
    /no usable COMMON .* BAR 4 is an I\/O BAR/,
    bars((bar) => view(bar, { kind: 'io' })),
  );
});

test('abuse-D2: an unusable first instance gives way to a usable second one', async () => {
  const { fn } = patched((target, view, at) => {
    // A copy of COMMON in front, behind a BAR that is not there.
    const copy = 0xe0;
    target.configSpace.set(target.configSpace.subarray(at(PciCapType.COMMON), at(PciCapType.COMMON) + 16), copy);
    view.setUint8(copy + cap.bar.offset, 2);
    view.setUint8(copy + cap.cap_next.offset, view.getUint8(POINTER));
    view.setUint8(POINTER, copy);
  });
  const found = findVirtioCapabilities(fn);
  assert.is(found.common.bar.index, 4);
  assert.equal(found.skipped, ['COMMON at 0xe0: BAR 2 is absent']);
  fn.close();
  await fn.closed;
});

test('abuse-D3: offset and length past the BAR, past 32 bits together', async () => {
  const place =
    (type: number, offset: number, length: number): Patch =>
    (_, view, at) => {
      view.setUint32(at(type) + cap.offset.offset, offset, true);
      view.setUint32(at(type) + cap.length.offset, length, true);
    };
  for (const [offset, length] of [
    [0x4000, 64],
    [0x3fc4, 64],
    [0, 0x4001],
    [0xffff_ffc0, 64],
    [0xffff_fff0, 0x40],
    [0x10, 0xffff_fff0],
    [0xffff_ffff, 0xffff_ffff],
  ] as const) {
    await refused(place(PciCapType.COMMON, offset, length), /the COMMON structure .* leaves BAR 4 of 0x4000 bytes/);
  }
  for (const type of [PciCapType.NOTIFY, PciCapType.ISR, PciCapType.DEVICE]) {
    await refused(place(type, 0xffff_fffc, 8), /leaves BAR 4/);
  }
});

test('abuse-D4: a structure shorter than the document has it', async () => {
  const length =
    (type: number, bytes: number): Patch =>
    (_, view, at) =>
      view.setUint32(at(type) + cap.length.offset, bytes, true);
  for (const bytes of [0, 1, 55]) {
    await refused(length(PciCapType.COMMON, bytes), /the COMMON structure is \d+ bytes long, at least 56/);
  }
  for (const bytes of [0, 1])
    await refused(length(PciCapType.NOTIFY, bytes), /NOTIFY structure is \d+ bytes long, at least 2/);
  for (const bytes of [0, 5])
    await refused(length(PciCapType.DEVICE, bytes), /DEVICE structure is \d+ bytes long, at least 6/);
  await refused(length(PciCapType.ISR, 0), /ISR structure is 0 bytes long/);
});

test('abuse-D4: a capability shorter than its fields, or half outside configuration space', async () => {
  const capLength =
    (type: number, bytes: number): Patch =>
    (_, view, at) =>
      view.setUint8(at(type) + cap.cap_len.offset, bytes);
  await refused(capLength(PciCapType.COMMON, 15), /COMMON capability is 15 bytes long, at least 16/);
  await refused(capLength(PciCapType.NOTIFY, 16), /NOTIFY capability is 16 bytes long, at least 20/);
  await refused(capLength(PciCapType.PCI_CFG, 0), /PCI_CFG capability is 0 bytes long/);
  await refused((_, view) => {
    view.setUint8(POINTER, 0xfc);
    view.setUint8(0xfc, PciCapabilityId.VENDOR);
    view.setUint8(0xfd, 0);
    view.setUint8(0xfe, 16);
    view.setUint8(0xff, PciCapType.COMMON);
  }, /COMMON capability at 0xfc leaves configuration space/);
});

test('abuse-D4: a structure that is not aligned', async () => {
  const offset =
    (type: number, by: number): Patch =>
    (_, view, at) => {
      const position = at(type) + cap.offset.offset;
      view.setUint32(position, view.getUint32(position, true) + by, true);
    };
  await refused(offset(PciCapType.COMMON, 2), /COMMON structure at 0x2 is not aligned to 4/);
  await refused(offset(PciCapType.DEVICE, 1), /DEVICE structure at 0x2001 is not aligned to 4/);
  await refused(offset(PciCapType.NOTIFY, 1), /NOTIFY structure at 0x3001 is not aligned to 2/);
});

/** A SHARED_MEMORY capability with 64-bit offset and length, in front of all others. */
const sharedMemory =
  (offset: bigint, length: bigint): Patch =>
  (_, view) => {
    const at = 0xe0;
    const next = view.getUint8(POINTER);
    const [offset_hi, length_hi] = [Number(offset >> 32n), Number(length >> 32n)];
    virtioPciCap64.write(
      view,
      {
        cap_vndr: PciCapabilityId.VENDOR,
        cap_next: next,
        cap_len: virtioPciCap64.bytes,
        cfg_type: PciCapType.SHARED_MEMORY,
        bar: 4,
        id: 7,
        offset: Number(offset & 0xffff_ffffn),
        length: Number(length & 0xffff_ffffn),
        offset_hi,
        length_hi,
      },
      at,
    );
    view.setUint8(POINTER, at);
  };

test('abuse-D3: a shared memory of 64-bit offset and length past the BAR, past 64 bits together', async () => {
  for (const [offset, length] of [
    [0x4000n, 1n],
    [0n, 0x4001n],
    [1n << 32n, 0n],
    [0n, 1n << 32n],
    [0xffff_ffff_ffff_ffffn, 1n],
    [0xffff_ffff_ffff_f000n, 0x1000n],
    [0xffff_ffff_ffff_ffffn, 0xffff_ffff_ffff_ffffn],
  ] as const) {
    await refused(sharedMemory(offset, length), /shared memory .* leaves BAR 4 of 0x4000 bytes/);
  }
  const { fn } = patched(sharedMemory(0x1000n, 0x3000n));
  assert.equal(findVirtioCapabilities(fn).sharedMemory, [{ id: 7, bar: 4, offset: 0x1000n, bytes: 0x3000n }]);
  fn.close();
  await fn.closed;
});

test('abuse-D2: a legacy device whose BAR 0 is absent, of memory, or too short', async () => {
  const shown = (change: (bar: Bar) => Bar | undefined): EmulatedFaults => ({
    onBar: (index, bar) => (index === 0 && bar !== undefined ? change(bar) : bar),
  });
  const like = (bar: Bar, change: Partial<Pick<Bar, 'bytes' | 'kind'>>): Bar =>
    new Proxy(bar, { get: (target, name) => Reflect.get(name in change ? change : target, name) });
  for (const [faults, code] of [
    [shown(() => undefined), ErrorCode.WRONG_KIND],
    [shown((bar) => like(bar, { kind: 'memory' })), ErrorCode.WRONG_KIND],
    [shown((bar) => like(bar, { bytes: 19 })), ErrorCode.DEVICE_BROKEN],
  ] as const) {
    const fn = new EmulatedPciFunction(new FakeDeviceModel(), { kind: 'legacy', faults });
    try {
      PciLegacyTransport.open(fn);
      assert.unreachable('was not refused');
    } catch (error) {
      assert.ok(error instanceof VirtioError && error.code === code, String(error));
      isComplete(error);
    }
    fn.close();
    await fn.closed;
  }
});

test('abuse-D5: a list that runs in a circle, however long, ends', async () => {
  await refused(
    (_, view) => view.setUint8(view.getUint8(POINTER) + 1, view.getUint8(POINTER)),
    /runs in a circle at 0x40/,
  );
  await refused((_, view, at) => view.setUint8(at(PciCapType.COMMON) + 1, at(PciCapType.COMMON)), /runs in a circle/);
  // Through all 48 places there are, and back.
  await refused((target, view) => {
    for (let place = 0x40; place < 0x100; place += 4) target.configSpace.set([0x2a, place + 4, 0, 0], place);
    view.setUint8(0xfc + 1, 0x40);
  }, /runs in a circle at 0x40/);
});

test('abuse-D5: a list of 48 capabilities is walked to its end', async () => {
  const { fn } = patched((target, view) => {
    for (let place = 0x40; place < 0x100; place += 4) target.configSpace.set([0x2a, place + 4, 0, 0], place);
    view.setUint8(0xfc + 1, 0);
  });
  assert.throws(
    () => findVirtioCapabilities(fn),
    (error: unknown) => error instanceof VirtioError && error.code === ErrorCode.UNSUPPORTED,
  );
  fn.close();
  await fn.closed;
});

test('abuse-D5: a pointer that is not aligned, or points into the header', async () => {
  for (const pointer of [0x41, 0x42, 0x43, 0xff]) {
    await refused((_, view) => view.setUint8(POINTER, pointer), /is not a multiple of 4/);
  }
  for (const pointer of [0x04, 0x34, 0x3c]) {
    await refused((_, view) => view.setUint8(POINTER, pointer), /points into the header/);
    await refused((_, view) => view.setUint8(view.getUint8(POINTER) + 1, pointer), /points into the header/);
  }
});

test('abuse-D6: of two structures of a type the first counts, and the second is not even looked at (spec-D14)', async () => {
  const { fn } = patched((target, view, at) => {
    const last = at(PciCapType.PCI_CFG);
    const copy = 0xe0;
    target.configSpace.set(target.configSpace.subarray(at(PciCapType.COMMON), at(PciCapType.COMMON) + 16), copy);
    view.setUint32(copy + cap.offset.offset, 0xffff_ffff, true);
    view.setUint8(copy + cap.cap_next.offset, 0);
    view.setUint8(last + cap.cap_next.offset, copy);
  });
  const found = findVirtioCapabilities(fn);
  assert.is(found.common.offset, 0);
  assert.equal(found.skipped, ['COMMON at 0xe0: not the first']);
  fn.close();
  await fn.closed;
});

/** A device with another notify_off_multiplier. */
const multiplier = (value: number): Patch => {
  const { notify_off_multiplier } = virtioPciNotifyCap.fields;
  return (_, view, at) => view.setUint32(at(PciCapType.NOTIFY) + notify_off_multiplier.offset, value, true);
};

test('abuse-D7: with a multiplier of 0 all queues share one address', () =>
  withMemory(async (fd) => {
    const { fn, log } = patched(multiplier(0));
    await bringUp(PciModernTransport.open(fn), fd);
    assert.equal(
      log.doorbells.map(({ offset, value }) => [offset, value]),
      [
        [0x3000, 0],
        [0x3000, 1],
      ],
    );
    fn.close();
    await fn.closed;
  }));

test('abuse-D8: a large multiplier is as good as any while the addresses are inside the structure', () =>
  withMemory(async (fd) => {
    const { fn, log } = patched((target, view, at) => {
      multiplier(0xffe)(target, view, at);
      view.setUint32(at(PciCapType.NOTIFY) + cap.length.offset, 0x1000, true);
    });
    await bringUp(PciModernTransport.open(fn), fd);
    assert.equal(
      log.doorbells.map(({ offset, value }) => [offset, value]),
      [
        [0x3000, 0],
        [0x3ffe, 1],
      ],
    );
    fn.close();
    await fn.closed;
  }));

/** Goes up to the set-up of a queue; returns the refusal. */
async function setUpRefused(patch: Patch, faults: EmulatedFaults, accepted = fakeWanted): Promise<VirtioError> {
  return withMemory(async (fd) => {
    const { fn, log } = patched(patch, faults);
    const transport = PciModernTransport.open(fn);
    await bringUp(transport, fd, { queues: [], wanted: accepted });
    try {
      await transport.setUpQueue(1, new RingPlaces().place(64));
      return assert.unreachable('was not refused') as never;
    } catch (error) {
      assert.ok(error instanceof VirtioError && error.code === ErrorCode.DEVICE_BROKEN, String(error));
      assert.not(
        log.writes.some((write) => write.startsWith('queue_enable')),
        'the queue was not enabled',
      );
      assert.equal(log.doorbells, []);
      return error;
    } finally {
      fn.close();
      await fn.closed;
    }
  });
}

test('abuse-D8: a notify address outside its structure, in full width', async () => {
  const notifyOff = (value: number): EmulatedFaults => ({
    onRead: (region, offset, honest) =>
      region === 'common' && offset === virtioPciCommonCfg.fields.queue_notify_off.offset ? value : honest,
  });
  for (const [queueNotifyOff, by] of [
    [1, 20],
    [1, 0xffff_fffe],
    [2, 0x8000_0000],
    [0x8000, 0x2_0000],
    [0xfffe, 0xffff_ffff],
    [5, 4],
    [19, 1],
  ] as const) {
    const error = await setUpRefused(multiplier(by), notifyOff(queueNotifyOff));
    assert.match(error.message, /leaves the NOTIFY structure of 20 bytes/, `${queueNotifyOff} times ${by}`);
  }
});

test('abuse-D8: an address that fits 16 bits and not the 32 of NOTIFICATION_DATA; one that is not aligned', async () => {
  const shorter: Patch = (fn, view, at) => {
    multiplier(4)(fn, view, at);
    view.setUint32(at(PciCapType.NOTIFY) + cap.length.offset, 6, true);
  };
  assert.match((await setUpRefused(multiplier(3), {})).message, /is not aligned to 2/);
  await withMemory(async (fd) => {
    for (const wanted of [fakeWanted, fakeWanted.with(Feature.NOTIFICATION_DATA)]) {
      const device = new FakeDeviceModel({ offered: fakeOffered.with(Feature.NOTIFICATION_DATA) });
      const fn = new EmulatedPciFunction(device);
      const { fn: model } = patched(shorter);
      fn.configSpace.set(model.configSpace);
      const transport = PciModernTransport.open(fn);
      const outcome = await bringUp(transport, fd, { wanted }).then(
        () => 'up',
        (error: unknown) => (error as VirtioError).code,
      );
      assert.is(outcome, wanted === fakeWanted ? 'up' : ErrorCode.DEVICE_BROKEN);
      for (const each of [fn, model]) {
        each.close();
        await each.closed;
      }
    }
  });
});

test.run();
