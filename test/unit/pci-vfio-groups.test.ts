/** Several functions in one VFIO container, the limits of an IOMMU, and VFIO without one; against a VFIO of our own. */

import { closeSync, constants, openSync } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { VirtioError } from '../../driver/errors.js';
import { DmaMemory } from '../../driver/memory/dma-memory.js';
import { VfioContainer } from '../../driver/pci/vfio-container.js';
import { VfioFunction, type VfioFunctionOptions } from '../../driver/pci/vfio-function.js';
import { VfioExtension, VfioRequest } from '../../driver/spec/vfio.js';
import { iova } from '../../driver/units.js';
import { FAKE_ADDRESS, FakeVfio, type FakeVfioOptions } from '../support/fake-vfio.js';

const test = suite('driver/pci: VFIO groups and containers');
const SAME_GROUP = '0000:00:05.0';
const OTHER_GROUP = '0000:00:06.0';
const FIRST = iova(0x1_0000_0000n);
const SECOND = iova(0x2_0000_0000n);
const Errno = { EPERM: 1, EINVAL: 22 } as const;

const failsWith = (code: string, part: RegExp) => (error: unknown) =>
  error instanceof VirtioError && error.code === code && part.test(error.toLine());

async function withVfio(
  options: FakeVfioOptions,
  use: (vfio: FakeVfio, open: (address?: string, more?: VfioFunctionOptions) => VfioFunction) => void,
): Promise<void> {
  const folder = await mkdtemp(join(tmpdir(), 'vfio-groups-'));
  try {
    const vfio = new FakeVfio(folder, options);
    const { sysfs, groups } = vfio;
    use(vfio, (address = FAKE_ADDRESS, more = {}) =>
      VfioFunction.open(address, { libc: vfio, sysfs, groups, ...more }),
    );
    assert.is(vfio.open_.size, 0, 'every descriptor is closed');
  } finally {
    await rm(folder, { recursive: true });
  }
}

test('functions of one group and of two share a container: a group is opened once, memory is mapped once', async () => {
  using memory = DmaMemory.allocate({ bytes: 64 * 1024, pages: '4K' });
  await withVfio({ more: { [SAME_GROUP]: 7, [OTHER_GROUP]: 8 } }, (vfio, open) => {
    const container = VfioContainer.open({ libc: vfio });
    const functions = [FAKE_ADDRESS, SAME_GROUP, OTHER_GROUP].map((address) => open(address, { container }));
    assert.equal(vfio.given, [FAKE_ADDRESS, SAME_GROUP, OTHER_GROUP]);
    assert.equal(vfio.joined, [join(vfio.groups, '7'), join(vfio.groups, '8')]);
    assert.equal(vfio.iommuTypes, [VfioExtension.TYPE1v2_IOMMU], 'the IOMMU is turned on once');
    for (const fn of functions) fn.mapDma(FIRST, memory.range);
    assert.is(vfio.mapped.size, 1);
    functions[0]!.close();
    assert.equal([...vfio.openGroups.values()], vfio.joined, 'its neighbour still needs the group');
    functions[2]!.close();
    assert.equal([...vfio.openGroups.values()], [join(vfio.groups, '7')]);
    assert.is(vfio.mapped.size, 1, 'the last function still reaches it');
    functions[1]!.close();
    assert.equal([vfio.mapped.size, vfio.openGroups.size], [0, 0]);
    const again = open(OTHER_GROUP, { container });
    assert.is(vfio.iommuTypes.length, 2, 'VFIO takes the IOMMU with the last group');
    again.close();
    container.close();
  });
});

test('functions of one group that name no container share one, which goes with the last; none is given out twice', async () => {
  await withVfio({ more: { [SAME_GROUP]: 7, [OTHER_GROUP]: 8 } }, (vfio, open) => {
    const first = open(FAKE_ADDRESS);
    const second = open(SAME_GROUP);
    const other = open(OTHER_GROUP);
    assert.equal(vfio.joined, [join(vfio.groups, '7'), join(vfio.groups, '8')]);
    assert.is(vfio.iommuTypes.length, 2, 'another group has a container of its own');
    assert.throws(() => open(FAKE_ADDRESS), failsWith('IN_USE', /0000:00:04\.0 is in use: this process has it open/));
    first.close();
    first.close();
    assert.is(second.readConfig16(0), 0x1af4, 'its neighbour works on');
    open(FAKE_ADDRESS).close();
    second.close();
    other.close();
    assert.is(vfio.open_.size, 0);
    open(SAME_GROUP).close();
  });
});

test('other memory at the same address is refused, however alike: the functions of a group share their addresses', async () => {
  using memory = DmaMemory.allocate({ bytes: 64 * 1024, pages: '4K' });
  using other = DmaMemory.allocate({ bytes: 64 * 1024, pages: '4K' });
  await withVfio({ more: { [SAME_GROUP]: 7 } }, (vfio, open) => {
    const [first, second] = [open(FAKE_ADDRESS), open(SAME_GROUP)];
    const half = { ...memory.range, bytes: memory.range.bytes / 2 };
    first.mapDma(FIRST, memory.range);
    first.mapDma(SECOND, half);
    const refused = failsWith('IN_USE', /something else is mapped/);
    assert.throws(() => second.mapDma(FIRST, other.range), refused, 'another file');
    assert.throws(() => second.mapDma(SECOND, { ...half, fileOffset: half.bytes }), refused, 'another part');
    const fd = openSync(`/proc/self/fd/${memory.range.fd}`, constants.O_RDWR);
    second.mapDma(FIRST, { ...memory.range, fd });
    closeSync(fd);
    first.close();
    assert.equal([...vfio.mapped.keys()], [FIRST], 'what the second one shares, and no more');
    second.close();
    assert.is(vfio.mapped.size, 0);
  });
});

test('a function that cannot be had leaves those beside it alone', async () => {
  await withVfio({ more: { [OTHER_GROUP]: 8 } }, (vfio, open) => {
    const container = VfioContainer.open({ libc: vfio });
    const fn = open(FAKE_ADDRESS, { container });
    assert.throws(() => open('0000:00:1f.0', { container }), failsWith('NOT_FOUND', /no PCI device/));
    // Another container wants the group: VFIO gives it out once.
    assert.throws(() => open(FAKE_ADDRESS), failsWith('IN_USE', /0000:00:04\.0 is in use/));
    assert.is(fn.readConfig16(0), 0x1af4);
    fn.close();
    container.close();
  });
});

test('memory outside of the IOMMU’s ranges is refused before the kernel is asked, at either end and across a hole', async () => {
  using memory = DmaMemory.allocate({ bytes: 64 * 1024, pages: '4K' });
  const ranges = [
    { start: 0x1000_0000n, end: 0xfedf_ffffn },
    { start: 0xfef0_0000n, end: 0x1_0000_ffffn },
  ];
  await withVfio({ ranges }, (vfio, open) => {
    const fn = open();
    for (const address of [0xfff_0000n, 0xfedf_8000n, 0xfee0_0000n, 0x1_0000_1000n]) {
      const refused = failsWith(
        'INVALID_ARGUMENT',
        /the IOMMU maps 0x10000000 to 0xfedfffff, 0xfef00000 to 0x10000ffff/,
      );
      assert.throws(() => fn.mapDma(iova(address), memory.range), refused, `0x${address.toString(16)}`);
    }
    assert.is(vfio.mapped.size, 0);
    fn.mapDma(FIRST, memory.range);
    assert.ok(vfio.mapped.has(FIRST), 'it fits exactly');
    fn.close();
  });
});

test('the number of mappings is obeyed: the one too many is refused with what to do, and room comes back', async () => {
  using memory = DmaMemory.allocate({ bytes: 4096, pages: '4K' });
  await withVfio({ mappings: 1 }, (vfio, open) => {
    const fn = open();
    fn.mapDma(FIRST, memory.range);
    fn.mapDma(FIRST, memory.range);
    const refused = failsWith('NO_RESOURCES', /takes 1 mappings, and all of them are used.*hugepages.*dma_entry_limit/);
    assert.throws(() => fn.mapDma(SECOND, memory.range), refused);
    fn.unmapDma(FIRST);
    fn.mapDma(SECOND, memory.range);
    assert.equal([...vfio.mapped.keys()], [SECOND]);
    fn.close();
    assert.is(vfio.mapped.size, 0);
  });
});

test('without an IOMMU, as asked for: its own group file and type, nothing to map, the function works', async () => {
  using memory = DmaMemory.allocate({ bytes: 4096, pages: '4K' });
  await withVfio({ noIommu: true, more: { [OTHER_GROUP]: 8 } }, (vfio, open) => {
    const container = VfioContainer.open({ libc: vfio, noIommu: true });
    const functions = [FAKE_ADDRESS, OTHER_GROUP].map((address) => open(address, { container }));
    assert.equal(vfio.joined, [join(vfio.groups, 'noiommu-7'), join(vfio.groups, 'noiommu-8')]);
    assert.equal(vfio.iommuTypes, [VfioExtension.NOIOMMU_IOMMU]);
    for (const fn of functions) {
      // Any address: it is the physical one, and nobody translates.
      fn.mapDma(iova(0x1234_5000n), memory.range);
      assert.is(fn.readConfig16(0), 0x1af4);
      fn.unmapDma(iova(0x1234_5000n));
    }
    for (const fn of functions) fn.close();
    container.close();
    const alone = open(FAKE_ADDRESS, { noIommu: true });
    assert.equal(alone.enableInterrupts(1), vfio.irqFds);
    alone.close();
  });
});

const choices: readonly [string, FakeVfioOptions, boolean, string, RegExp][] = [
  [
    'a group without an IOMMU is never taken unasked',
    { noIommu: true },
    false,
    'UNSUPPORTED',
    /all memory.*choose noiommu/,
  ],
  ['an IOMMU that is there is not gone around', {}, true, 'WRONG_STATE', /is behind an IOMMU.*choose vfio/],
  [
    'a kernel that does not do without',
    { iommuGroup: false, driver: '' },
    true,
    'WRONG_STATE',
    /devbind --noiommu --bind/,
  ],
  [
    'an unprivileged user, at the group',
    { noIommu: true, openErrno: Errno.EPERM },
    true,
    'PERMISSION_DENIED',
    /noiommu-7.*run as root.*CAP_SYS_RAWIO/,
  ],
  [
    'an unprivileged user, at the container',
    { noIommu: true, failing: { [VfioRequest.GROUP_SET_CONTAINER]: Errno.EPERM } },
    true,
    'PERMISSION_DENIED',
    /CAP_SYS_RAWIO/,
  ],
  [
    'an unprivileged user, at the IOMMU',
    { noIommu: true, failing: { [VfioRequest.SET_IOMMU]: Errno.EPERM } },
    true,
    'PERMISSION_DENIED',
    /without an IOMMU.*CAP_SYS_RAWIO/,
  ],
  [
    'a container of the other kind',
    { failing: { [VfioRequest.GROUP_SET_CONTAINER]: Errno.EINVAL } },
    false,
    'WRONG_STATE',
    /does not take the group.*container of its own/,
  ],
];
for (const [name, options, noIommu, code, part] of choices) {
  test(`refused: ${name}`, async () => {
    await withVfio(options, (_vfio, open) =>
      assert.throws(() => open(FAKE_ADDRESS, { noIommu }), failsWith(code, part)),
    );
  });
}

test('refused: the switch is off', async () => {
  await withVfio({}, (vfio) => {
    const open = () => VfioContainer.open({ libc: vfio, noIommu: true });
    assert.throws(open, failsWith('UNSUPPORTED', /does not do without an IOMMU.*devbind --noiommu/));
  });
});

test.run();
