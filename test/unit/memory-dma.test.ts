/** DMA memory: what it is on, how it fails, who owns it, which addresses it has. */

import { spawnSync } from 'node:child_process';
import { readdirSync, readFileSync, readlinkSync } from 'node:fs';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { ErrorCode, VirtioError } from '../../driver/errors.js';
import { DmaMemory, FIRST_IOVA } from '../../driver/memory/dma-memory.js';
import { IovaTable } from '../../driver/memory/iova-table.js';
import { GiB, iova, KiB, MiB } from '../../driver/units.js';
import { native } from '../../native/index.js';
import { skipUnless } from '../support/skip.js';

const test = suite('DMA memory');

function failure(work: () => unknown): VirtioError {
  try {
    work();
  } catch (error) {
    assert.instance(error, VirtioError);
    return error as VirtioError;
  }
  assert.unreachable('it must fail');
  throw new Error();
}

/** Memory files that this process has open. */
const openMemories = (): number =>
  readdirSync('/proc/self/fd').filter((fd) => {
    try {
      return readlinkSync(`/proc/self/fd/${fd}`).includes('memfd:virtio-pmd');
    } catch {
      return false;
    }
  }).length;
const mappings = (): number => readFileSync('/proc/self/maps', 'utf8').split('memfd:virtio-pmd').length - 1;

/** Hugepages of a size that can be had now, surplus ones included. */
function freeHugepages(kilobytes: number): number {
  const read = (name: string): number => {
    try {
      return Number(readFileSync(`/sys/kernel/mm/hugepages/hugepages-${kilobytes}kB/${name}`, 'utf8'));
    } catch {
      return 0;
    }
  };
  return read('free_hugepages') - read('resv_hugepages') + read('nr_overcommit_hugepages');
}

test('ordinary pages: whole ones, zeroed, writable, closed for good', () => {
  const memory = DmaMemory.allocate({ bytes: 5000, pages: '4K' });
  assert.is(memory.bytes, 8 * KiB);
  assert.is(memory.kind, '4 KiB pages');
  const bytes = new Uint8Array(memory.buffer);
  assert.ok(bytes.every((byte) => byte === 0));
  bytes[4999] = 7;
  assert.equal(memory.range, { fd: memory.handle.fd, fileOffset: 0, bytes: 8 * KiB });
  memory.close();
  memory.close();
  assert.is(bytes.length, 0, 'no view outlives the mapping');
  assert.is(failure(() => memory.buffer).code, ErrorCode.WRONG_STATE);
});

/** Bytes on 2 MiB hugepages that there are not enough of. */
const tooManyBytes = (): number => (freeHugepages(2048) + 64) * 2 * MiB;
// A machine may have so many hugepages that no memory of ours is too large.
const testScarce = skipUnless(
  test,
  tooManyBytes() <= 2 * GiB,
  'needs a machine with less than 2 GiB of free hugepages',
);
const testNoGigantic = skipUnless(test, freeHugepages(1_048_576) < 2, 'needs a machine without free 1 GiB hugepages');

testScarce('without the hugepages that were asked for: NO_RESOURCES, with the command that makes them', () => {
  const bytes = tooManyBytes();
  const error = failure(() => DmaMemory.allocate({ bytes, pages: '2M' }));
  assert.is(error.code, ErrorCode.NO_RESOURCES);
  assert.is(error.value, bytes);
  assert.match(
    error.advice ?? '',
    `echo ${bytes / (2 * MiB)} > /sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages`,
  );
});

testNoGigantic('the same for 1 GiB hugepages', () => {
  const error = failure(() => DmaMemory.allocate({ bytes: 2 * GiB, pages: '1G' }));
  assert.is(error.code, ErrorCode.NO_RESOURCES);
  assert.match(error.message, '2 free 1 GiB hugepages');
});

testScarce('auto takes hugepages where there are enough, says so, and says why not', () => {
  const large = DmaMemory.allocate({ bytes: tooManyBytes() });
  assert.is(large.kind, '4 KiB pages (no free 2 MiB hugepages)');
  large.close();
  // Others may take the last ones in between.
  if (freeHugepages(2048) < 8) return;
  using small = DmaMemory.allocate({ bytes: 1 });
  assert.is(small.kind, '2 MiB hugepages');
  assert.is(small.bytes, 2 * MiB);
});

test('sizes that cannot be', () => {
  // Beyond 2 GiB too: positions in it are signed 32-bit numbers.
  for (const bytes of [0, -1, Number.NaN, Number.POSITIVE_INFINITY, 1.5, 2 ** 53, 2 * GiB + 1]) {
    assert.is(failure(() => DmaMemory.allocate({ bytes })).code, ErrorCode.INVALID_ARGUMENT, `${bytes}`);
  }
});

testScarce('failures leave neither descriptors nor mappings behind', () => {
  const before = [openMemories(), mappings()];
  for (let round = 0; round < 5; round++) failure(() => DmaMemory.allocate({ bytes: tooManyBytes(), pages: '2M' }));
  assert.equal([openMemories(), mappings()], before);
});

test('abuse-D36: locking beyond the memlock limit: NO_RESOURCES, with both figures', () => {
  const script = `
    const { DmaMemory } = await import(${JSON.stringify(new URL('../../driver/memory/dma-memory.js', import.meta.url).href)});
    const { readdirSync } = await import('node:fs');
    const before = readdirSync('/proc/self/fd').length;
    const outcome = (options) => {
      try { DmaMemory.allocate(options).close(); return 'allocated'; }
      catch (error) { return { code: error.code, message: error.message, advice: error.advice }; }
    };
    console.log(JSON.stringify([
      outcome({ bytes: ${4 * MiB}, pages: '4K', lock: true }),
      outcome({ bytes: ${4 * MiB}, pages: '4K' }),
      readdirSync('/proc/self/fd').length - before,
    ]));`;
  // A process with CAP_IPC_LOCK, as root's are, has no limit.
  const drop = process.getuid?.() === 0 ? 'setpriv --bounding-set -ipc_lock --inh-caps -ipc_lock' : '';
  const command = `ulimit -l 64 && exec ${drop} "$0" --input-type=module -e "$1"`;
  const run = spawnSync('sh', ['-c', command, process.execPath, script], { encoding: 'utf8', timeout: 30_000 });
  assert.is(run.status, 0, run.stderr);
  const [locked, unlocked, descriptors] = JSON.parse(run.stdout);
  assert.is(locked.code, ErrorCode.NO_RESOURCES, run.stdout);
  assert.match(locked.message, 'the memlock limit is 65536 bytes');
  assert.match(locked.advice, `at least ${4 * MiB} bytes`);
  assert.is(unlocked, 'allocated', 'without a device that does DMA no limit counts');
  assert.is(descriptors, 0, 'the file of the failure is closed');
});

test('every memory of a process has addresses of its own, from 4 GiB on', () => {
  const memories = [1, 3 * MiB, 5].map((bytes) => DmaMemory.allocate({ bytes, pages: '4K' }));
  const ranges = memories.map((memory) => [memory.iovas.at(0), memory.iovas.at(0) + BigInt(memory.bytes)] as const);
  for (const [index, [start]] of ranges.entries()) {
    assert.ok(start >= FIRST_IOVA);
    for (const [other, [from, to]] of ranges.entries()) assert.ok(other === index || start < from || start >= to);
  }
  for (const memory of memories) memory.close();
  using chosen = DmaMemory.allocate({ bytes: 1, pages: '4K', iovaBase: iova(0x1234_5000n) });
  assert.is(chosen.iovas.at(4095), 0x1234_5fffn);
});

test("attached memory is the same memory under the same addresses; the file stays its owner's", () => {
  using owner = DmaMemory.allocate({ bytes: 1, pages: '4K' });
  const other = DmaMemory.attach(owner.handle);
  new Uint8Array(other.buffer)[100] = 42;
  assert.is(new Uint8Array(owner.buffer)[100], 42);
  assert.is(other.iovas.at(100), owner.iovas.at(100));
  assert.is(other.kind, owner.kind);
  other.close();
  assert.is(native.inspectFd(owner.handle.fd).bytes, owner.bytes, 'the descriptor is still open');
  assert.is(new Uint8Array(owner.buffer)[100], 42);
});

test('take: aligned, one behind the other, and NO_RESOURCES at the end', () => {
  using memory = DmaMemory.allocate({ bytes: 4096, pages: '4K' });
  assert.is(memory.take(10, 64), 0);
  assert.is(memory.take(1, 128), 128);
  assert.is(memory.take(4096 - 256, 256), 256);
  assert.is(failure(() => memory.take(1, 1)).code, ErrorCode.NO_RESOURCES);
});

test('an IOVA table by page: each page where it is, runs known, nothing beyond the end', () => {
  const pages = [0x10_0000n, 0x10_1000n, 0x20_0000n, 0x1_0000_0000n];
  const table = new IovaTable({ pageBytes: 4096, pages });
  assert.is(table.at(0), 0x10_0000n);
  assert.is(table.at(4096 + 5), 0x10_1005n);
  assert.is(table.at(3 * 4096 + 4095), 0x1_0000_0fffn);
  assert.is(table.isContiguous(0, 8192), true);
  assert.is(table.isContiguous(0, 8193), false);
  assert.is(table.isContiguous(4000, 4192), true);
  assert.is(table.isContiguous(4096, 4097), false);
  assert.is(table.isContiguous(8192, 4096), true);
  for (const offset of [4 * 4096, -1, Number.NaN]) {
    assert.is(failure(() => table.at(offset)).code, ErrorCode.INVALID_ARGUMENT, `${offset}`);
  }
  assert.equal(new IovaTable(structuredClone(table.data)).at(8192), 0x20_0000n);
});

test('a contiguous IOVA table: one run, to its last byte', () => {
  const table = IovaTable.contiguous(iova(0xffff_f000n), 12_288);
  assert.is(table.at(0), 0xffff_f000n);
  assert.is(table.at(12_287), 0x1_0000_1fffn);
  assert.is(table.isContiguous(0, 12_288), true);
  assert.is(failure(() => table.at(12_288)).code, ErrorCode.INVALID_ARGUMENT);
});

test.run();
