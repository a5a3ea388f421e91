/** VFIO that gives no memory, or no device (abuse D36, D37): refused with what to do, nothing mapped, every descriptor closed. */

import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { VirtioError } from '../../driver/errors.js';
import { DmaMemory } from '../../driver/memory/dma-memory.js';
import { VfioFunction } from '../../driver/pci/vfio-function.js';
import { VfioRequest } from '../../driver/spec/vfio.js';
import { iova } from '../../driver/units.js';
import { FAKE_ADDRESS, FakeVfio, type FakeVfioOptions } from '../support/fake-vfio.js';

const test = suite('VFIO that does not give');
const Errno = { EPERM: 1, ENOMEM: 12, EACCES: 13, EBUSY: 16, EEXIST: 17, EINVAL: 22, ENOSPC: 28 } as const;

async function withVfio(
  options: FakeVfioOptions,
  use: (vfio: FakeVfio, open: (noIommu?: boolean) => VfioFunction) => void,
): Promise<void> {
  const folder = await mkdtemp(join(tmpdir(), 'abuse-vfio-'));
  try {
    const vfio = new FakeVfio(folder, options);
    const { sysfs, groups } = vfio;
    use(vfio, (noIommu) => VfioFunction.open(FAKE_ADDRESS, { libc: vfio, sysfs, groups, noIommu }));
    assert.is(vfio.open_.size, 0, 'every descriptor is closed');
    assert.is(vfio.mapped.size, 0, 'nothing stays mapped');
  } finally {
    await rm(folder, { recursive: true });
  }
}

function refused(call: () => unknown, code: string, line: RegExp): void {
  try {
    call();
  } catch (error) {
    assert.instance(error, VirtioError);
    const virtioError = error as VirtioError;
    assert.is(virtioError.code, code, virtioError.toLine());
    assert.match(virtioError.toLine(), line);
    assert.ok(virtioError.advice !== undefined, `${virtioError.toLine()}: without advice`);
    return;
  }
  assert.unreachable(`was not refused with ${code}`);
}

for (const [name, errno, code, line] of [
  [
    'ENOMEM',
    Errno.ENOMEM,
    'NO_RESOURCES',
    /65536 bytes .* the memlock limit is \d+ bytes \(raise it to at least 131072/,
  ],
  ['ENOSPC', Errno.ENOSPC, 'NO_RESOURCES', /no mapping left .*hugepages.*dma_entry_limit/],
  ['EEXIST', Errno.EEXIST, 'IN_USE', /something else is mapped/],
  ['EPERM', Errno.EPERM, 'PERMISSION_DENIED', /may not map .*EPERM.*run as root/],
  ['EINVAL', Errno.EINVAL, 'INVALID_ARGUMENT', /cannot map/],
] as const) {
  test(`abuse-D36: VFIO answers ${name} to the second of two mappings`, async () => {
    using memory = DmaMemory.allocate({ bytes: 64 * 1024, pages: '4K' });
    const failing: Record<number, number> = {};
    await withVfio({ failing }, (vfio, open) => {
      const fn = open();
      fn.mapDma(iova(0x1_0000_0000n), memory.range);
      failing[VfioRequest.IOMMU_MAP_DMA] = errno;
      refused(() => fn.mapDma(iova(0x2_0000_0000n), memory.range), code, line);
      assert.equal([...vfio.mapped.keys()], [0x1_0000_0000n]);
      fn.close();
    });
  });
}

test('abuse-D36: the limit of mappings is known before the kernel is asked', async () => {
  using memory = DmaMemory.allocate({ bytes: 64 * 1024, pages: '4K' });
  await withVfio({ mappings: 1 }, (_vfio, open) => {
    const fn = open();
    fn.mapDma(iova(0x1_0000_0000n), memory.range);
    refused(() => fn.mapDma(iova(0x2_0000_0000n), memory.range), 'NO_RESOURCES', /takes 1 mappings/);
    fn.close();
  });
});

for (const [name, options, noIommu, code, line] of [
  ['a group that is not viable', { viable: false }, false, 'WRONG_STATE', /not viable.*0000:00:04\.1/],
  ['a device of another driver', { driver: 'virtio-pci' }, false, 'WRONG_STATE', /0000:00:04\.0.*virtio-pci.*devbind/],
  ['a device without a driver', { driver: '' }, false, 'WRONG_STATE', /0000:00:04\.0.*no driver/],
  ['a group that somebody has', { openErrno: Errno.EBUSY }, false, 'IN_USE', /0000:00:04\.0 is in use/],
  ['a group of another user', { openErrno: Errno.EACCES }, false, 'PERMISSION_DENIED', /run as root/],
  ['no IOMMU, unasked', { noIommu: true }, false, 'UNSUPPORTED', /0000:00:04\.0.*choose noiommu/],
  ['an IOMMU that is to be gone around', {}, true, 'WRONG_STATE', /0000:00:04\.0 is behind an IOMMU/],
  [
    'a container that is of another kind',
    { failing: { [VfioRequest.GROUP_SET_CONTAINER]: Errno.EINVAL } },
    false,
    'WRONG_STATE',
    /container of its own/,
  ],
  [
    'interrupts that are not remapped',
    { failing: { [VfioRequest.SET_IOMMU]: Errno.EPERM } },
    false,
    'PERMISSION_DENIED',
    /intremap=on/,
  ],
] as const) {
  test(`abuse-D37: ${name}`, () => withVfio(options, (_vfio, open) => refused(() => open(noIommu), code, line)));
}

test('abuse-D37: without an IOMMU only when it is asked for, and then it works', () =>
  withVfio({ noIommu: true }, (_vfio, open) => open(true).close()));

test.run();
