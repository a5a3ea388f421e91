/** Capture files that are written: read back they are the same, and a full disk loses no whole packet. */

import { spawnSync } from 'node:child_process';
import { mkdirSync, readFileSync, statSync } from 'node:fs';
import { join } from 'node:path';

import fc from 'fast-check';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';

import type { VirtioError } from '../../driver/errors.js';
import { PcapReader } from '../../driver/pcap/pcap-reader.js';
import { PcapWriter } from '../../driver/pcap/pcap-writer.js';
import { makePcap, pattern } from '../support/capture-files.js';
import { skipWithoutRoot } from '../support/skip.js';
import { withFolder } from '../support/temp-folder.js';

/** Returns the error that `action` throws. */
function errorOf(action: () => void): VirtioError {
  try {
    action();
  } catch (error) {
    return error as VirtioError;
  }
  throw new Error('it did not throw');
}

function readAll(path: string) {
  const reader = PcapReader.open(path);
  try {
    return [...reader];
  } finally {
    reader.close();
  }
}

const test = suite('capture files, written');

test('pcap §4, §5: byte for byte a nanosecond file, little-endian, snap length 262144', () =>
  withFolder((folder) => {
    const path = join(folder, 'x.pcap');
    const writer = PcapWriter.create(path);
    writer.write(pattern(60), 1_700_000_000_123_456_789n);
    writer.close();
    const expected = makePcap({ little: true, nanoseconds: true }, [
      { seconds: 1_700_000_000, fraction: 123_456_789, bytes: pattern(60) },
    ]);
    new DataView(expected.buffer).setUint32(16, 262_144, true);
    assert.equal(new Uint8Array(readFileSync(path)), expected);
  }));

test('whatever is written is read back', () =>
  withFolder((folder) => {
    const path = join(folder, 'x.pcap');
    const packets = fc.array(
      fc.record({
        bytes: fc.oneof(
          fc.uint8Array({ maxLength: 200 }),
          fc.integer({ min: 1400, max: 70_000 }).map((length) => pattern(length)),
        ),
        timestampNs: fc.bigInt({ min: 0n, max: 0xffff_ffffn * 1_000_000_000n + 999_999_999n }),
      }),
      { maxLength: 40 },
    );
    fc.assert(
      fc.property(packets, fc.integer({ min: 1, max: 262_144 }), (written, snapLength) => {
        const writer = PcapWriter.create(path, { snapLength });
        for (const { bytes, timestampNs } of written) writer.write(bytes, timestampNs);
        writer.close();
        assert.is(writer.packets, written.length);
        const expected = written.map(({ bytes, timestampNs }) => ({
          timestampNs,
          bytes: bytes.slice(0, snapLength),
          originalLength: bytes.length,
        }));
        assert.equal(readAll(path), expected);
      }),
      { numRuns: process.env['VIRTIO_PMD_FULL'] === undefined ? 60 : 5000 },
    );
  }));

test('a file of many chunks', () =>
  withFolder((folder) => {
    const path = join(folder, 'x.pcap');
    const writer = PcapWriter.create(path);
    for (let index = 0; index < 5000; index++) writer.write(pattern(1514, index), BigInt(index));
    writer.close();
    const packets = readAll(path);
    assert.is(packets.length, 5000);
    assert.ok(packets.every(({ bytes }, index) => Buffer.compare(bytes, pattern(1514, index)) === 0));
  }));

test('the buffer filled to its last byte, and by one byte more', () =>
  withFolder((folder) => {
    const path = join(folder, 'x.pcap');
    const [half, rest] = [262_144, 512 * 1024 - 2 * 16 - 262_144];
    for (const last of [rest, rest + 1]) {
      const writer = PcapWriter.create(path);
      for (const length of [half, last, 60]) writer.write(pattern(length), 1n);
      writer.close();
      assert.equal(
        readAll(path).map(({ bytes }) => bytes.length),
        [half, last, 60],
      );
    }
  }));

test('flush: what was written so far is a whole file', () =>
  withFolder((folder) => {
    const path = join(folder, 'x.pcap');
    const writer = PcapWriter.create(path);
    assert.is(readAll(path).length, 0, 'an empty capture is a capture');
    writer.write(pattern(60), 1n);
    assert.is(readAll(path).length, 0, 'still in memory');
    writer.flush();
    assert.is(readAll(path).length, 1);
    writer.close();
  }));

test('what cannot be written is refused', () =>
  withFolder((folder) => {
    const path = join(folder, 'x.pcap');
    for (const snapLength of [0, 262_145, 1.5, Number.NaN]) {
      assert.is(errorOf(() => PcapWriter.create(path, { snapLength })).code, 'INVALID_ARGUMENT');
    }
    const writer = PcapWriter.create(path);
    assert.is(errorOf(() => writer.write(pattern(60), -1n)).code, 'INVALID_ARGUMENT');
    assert.is(errorOf(() => writer.write(pattern(60), 1n << 62n)).code, 'INVALID_ARGUMENT');
    writer.close();
    writer.close();
    assert.is(errorOf(() => writer.write(pattern(60), 1n)).code, 'WRONG_STATE');
    assert.is(readAll(path).length, 0);
  }));

test('a path that cannot be made: the code says why', () =>
  withFolder((folder) => {
    assert.is(errorOf(() => PcapWriter.create(join(folder, 'no', 'x.pcap'))).code, 'NOT_FOUND');
    assert.is(errorOf(() => PcapWriter.create(folder)).code, 'WRONG_KIND');
  }));

test('a device that takes nothing: IO at once, with the path and the reason', () => {
  const error = errorOf(() => PcapWriter.create('/dev/full'));
  assert.is(error.code, 'IO');
  assert.match(error.toLine(), /\/dev\/full.* 0 packets \(0 bytes\).*no space left/);
});

const rootTest = skipWithoutRoot(suite('capture files, written to a full disk'));

rootTest('the disk runs full: IO, the file closed and whole up to its last packet', () =>
  withFolder((folder) => {
    const disk = join(folder, 'disk');
    mkdirSync(disk);
    assert.is(spawnSync('mount', ['-t', 'tmpfs', '-o', 'size=1200k', 'none', disk]).status, 0, 'mount');
    try {
      const path = join(disk, 'x.pcap');
      const writer = PcapWriter.create(path);
      let written = 0;
      const error = errorOf(() => {
        for (; written < 10_000; written++) writer.write(pattern(1000 + (written % 7), written), BigInt(written));
      });
      assert.is(error.code, 'IO');
      const packets = readAll(path);
      assert.ok(packets.length > 1100 && packets.length < 1220, `${packets.length} packets`);
      assert.is(writer.packets, packets.length);
      assert.ok(packets.every(({ bytes }, index) => Buffer.compare(bytes, pattern(1000 + (index % 7), index)) === 0));
      const counts = `${packets.length} packets (${statSync(path).size} bytes)`;
      assert.ok(error.message.includes(path) && error.message.includes(counts), error.message);
      assert.match(error.toLine(), /no space left on the disk \(make room/);
      assert.is(errorOf(() => writer.write(pattern(60), 1n)).code, 'WRONG_STATE');
      writer.close();
    } finally {
      assert.is(spawnSync('umount', [disk]).status, 0, 'umount');
    }
  }),
);

test.run();
rootTest.run();
