/** The binding of the C library, and the VFIO container on a machine without VFIO. */

import { spawnSync } from 'node:child_process';
import { closeSync, constants, existsSync, fstatSync, openSync, writeSync } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { ErrorCode, isSystemError, VirtioError } from '../../driver/errors.js';
import { type Libc, libc, systemError } from '../../driver/pci/libc.js';
import { VfioContainer } from '../../driver/pci/vfio-container.js';
import { VfioExtension, VfioRequest } from '../../driver/spec/vfio.js';

const test = suite('driver/pci: libc and the VFIO container');

/** Number of bytes that wait in a pipe. */
const FIONREAD = 0x541b;
/** Numbers of errno.h. */
const Errno = { EPERM: 1, ENOENT: 2, EBADF: 9, EACCES: 13, EINVAL: 22, ENOTTY: 25 } as const;

const failsWith =
  (code: string, part: string) =>
  (error: unknown): boolean =>
    error instanceof VirtioError && error.code === code && error.toLine().includes(part);

/** A fake of the kernel: what it answers, and what is left open. */
function fakeLibc(answers: { open?: number; version?: number | SystemFailure; type1v2?: number }) {
  const open = new Set<number>();
  const asked: number[] = [];
  const calls: Libc = {
    open: (path) => {
      if (answers.open !== undefined) throw systemError(answers.open, 'open', path);
      open.add(100);
      return 100;
    },
    close: (fd) => {
      assert.ok(open.delete(fd), `closed ${fd}, which is not open`);
    },
    ioctlValue: (fd, request, argument) => {
      assert.ok(open.has(fd));
      asked.push(request);
      if (request === VfioRequest.GET_API_VERSION) {
        if (typeof answers.version === 'object') throw systemError(answers.version.errno, 'ioctl');
        return answers.version ?? 0;
      }
      assert.is(request, VfioRequest.CHECK_EXTENSION);
      return argument === VfioExtension.TYPE1v2_IOMMU ? (answers.type1v2 ?? 1) : 0;
    },
    ioctlBuffer: () => 0,
  };
  return { calls, open, asked };
}
interface SystemFailure {
  readonly errno: number;
}

test('ioctl reaches the kernel and brings back what it writes: FIONREAD on a pipe', async () => {
  const folder = await mkdtemp(join(tmpdir(), 'vfio-container-'));
  try {
    const path = join(folder, 'pipe');
    assert.is(spawnSync('mkfifo', [path]).status, 0);
    const fd = openSync(path, constants.O_RDWR | constants.O_NONBLOCK);
    try {
      const waiting = new Uint8Array(12);
      const window = waiting.subarray(4, 8);
      assert.is(libc().ioctlBuffer(fd, FIONREAD, window), 0);
      assert.equal([...waiting], [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
      writeSync(fd, 'hello');
      libc().ioctlBuffer(fd, FIONREAD, window);
      assert.equal([...waiting], [0, 0, 0, 0, 5, 0, 0, 0, 0, 0, 0, 0], 'written through the view, nothing beside it');
    } finally {
      closeSync(fd);
    }
  } finally {
    await rm(folder, { recursive: true });
  }
});

test('a failed call has the fields of a system error', () => {
  try {
    libc().ioctlBuffer(-1, FIONREAD, new Uint8Array(4));
    assert.unreachable();
  } catch (error) {
    assert.ok(isSystemError(error, 'EBADF'));
    assert.is(error.errno, -Errno.EBADF);
    assert.is(error.syscall, 'ioctl');
  }
  try {
    libc().open('/nowhere/at/all', constants.O_RDONLY);
    assert.unreachable();
  } catch (error) {
    assert.ok(isSystemError(error, 'ENOENT'));
    assert.match(error.message, "open '/nowhere/at/all'");
  }
});

test('open and close: a descriptor that is close-on-exec, and is gone after', () => {
  const fd = libc().open('/dev/null', constants.O_RDWR);
  assert.ok(fstatSync(fd).isCharacterDevice());
  const flags = spawnSync('sh', ['-c', `test -e /proc/self/fd/${fd}`]);
  assert.is.not(flags.status, 0, 'the descriptor was inherited');
  libc().close(fd);
  assert.throws(() => fstatSync(fd), /EBADF/);
  assert.throws(() => libc().close(fd), /EBADF/);
});

test('no /dev/vfio/vfio: NOT_FOUND, and what to do', () => {
  const missing = join(tmpdir(), 'there-is-no-vfio-here');
  assert.not(existsSync(missing));
  assert.throws(() => VfioContainer.open({ path: missing }), failsWith(ErrorCode.NOT_FOUND, 'modprobe vfio-pci'));
});

test('a file that is not the container: WRONG_KIND, and closed', () => {
  assert.throws(
    () => VfioContainer.open({ path: '/dev/null' }),
    failsWith(ErrorCode.WRONG_KIND, 'VFIO_GET_API_VERSION'),
  );
});

test('not permitted: PERMISSION_DENIED', () => {
  for (const errno of [Errno.EACCES, Errno.EPERM]) {
    const { calls } = fakeLibc({ open: errno });
    assert.throws(() => VfioContainer.open({ libc: calls }), failsWith(ErrorCode.PERMISSION_DENIED, 'run as root'));
  }
});

test('another failure to open: IO, with the cause', () => {
  const { calls } = fakeLibc({ open: Errno.EINVAL });
  assert.throws(
    () => VfioContainer.open({ libc: calls }),
    (error: unknown) => failsWith(ErrorCode.IO, 'EINVAL')(error) && isSystemError((error as Error).cause, 'EINVAL'),
  );
});

test('another version, no type 1 IOMMU, no answer: refused, and closed', () => {
  const cases = [
    { answers: { version: 1 }, code: ErrorCode.UNSUPPORTED, part: 'version 1' },
    { answers: { type1v2: 0 }, code: ErrorCode.UNSUPPORTED, part: 'modprobe vfio_iommu_type1' },
    { answers: { version: { errno: Errno.ENOTTY } }, code: ErrorCode.WRONG_KIND, part: 'VFIO_GET_API_VERSION' },
  ];
  for (const { answers, code, part } of cases) {
    const { calls, open } = fakeLibc(answers);
    assert.throws(() => VfioContainer.open({ libc: calls }), failsWith(code, part));
    assert.is(open.size, 0, `${part}: left open`);
  }
});

test('a container that is fine: asked for version and IOMMU, closed once', () => {
  const { calls, open, asked } = fakeLibc({});
  const container = VfioContainer.open({ libc: calls });
  assert.equal(asked, [VfioRequest.GET_API_VERSION, VfioRequest.CHECK_EXTENSION]);
  assert.is(container.fd, 100);
  assert.is(container.hasExtension(VfioExtension.NOIOMMU_IOMMU), false);
  container.close();
  container.close();
  assert.is(open.size, 0);
  assert.throws(() => container.fd, failsWith(ErrorCode.WRONG_STATE, 'closed'));
});

test.run();
