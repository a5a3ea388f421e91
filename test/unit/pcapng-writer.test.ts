/** pcapng files that are written: read back they are the same, and several writers append to one. */

import { readFileSync } from 'node:fs';
import { join } from 'node:path';

import { suite } from 'uvu';
import * as assert from 'uvu/assert';

import { ErrorCode, VirtioError } from '../../driver/errors.js';
import { PacketDirection } from '../../driver/pcap/format.js';
import { PcapReader } from '../../driver/pcap/pcap-reader.js';
import { createPcapng, PcapngWriter } from '../../driver/pcap/pcapng-writer.js';
import { pattern } from '../support/capture-files.js';
import { withFolder } from '../support/temp-folder.js';

const START = 1_700_000_000_123_456_789n;
const port = { name: 'net_null0', description: 'port 0', macAddress: Uint8Array.of(2, 0, 0, 0, 0, 1) };
const received = (timestampNs: bigint) => ({ source: 0, direction: PacketDirection.RECEIVED, queue: 3, timestampNs });

const test = suite('pcapng files, written');

function readAll(path: string) {
  const reader = PcapReader.open(path);
  try {
    return [...reader];
  } finally {
    reader.close();
  }
}

test('packets of every length modulo four, and of the greatest one, are read back to the nanosecond', () =>
  withFolder((folder) => {
    const path = join(folder, 'x.pcapng');
    createPcapng(path, 'a test', [port]);
    const writer = new PcapngWriter(path);
    const lengths = [0, 1, 14, 60, 61, 62, 63, 64, 1514, 262_144, 262_143, 60];
    for (const [index, length] of lengths.entries()) {
      writer.write(pattern(length, index), received(START + BigInt(index) * 1_000_000_001n));
    }
    writer.close();
    assert.equal(
      readAll(path),
      lengths.map((length, index) => ({
        timestampNs: START + BigInt(index) * 1_000_000_001n,
        bytes: pattern(length, index),
        originalLength: length,
      })),
    );
  }));

test('pcapng §4.3: an enhanced packet block with direction and queue, byte for byte', () =>
  withFolder((folder) => {
    const path = join(folder, 'x.pcapng');
    createPcapng(path, 'a test', [port]);
    const before = readFileSync(path).length;
    const writer = new PcapngWriter(path);
    writer.write(Uint8Array.of(1, 2, 3, 4, 5), received(0x0123_4567_89ab_cdefn));
    writer.close();
    const expected = [
      [6, 0, 0, 0],
      [60, 0, 0, 0],
      [0, 0, 0, 0],
      [0x67, 0x45, 0x23, 0x01],
      [0xef, 0xcd, 0xab, 0x89],
      [5, 0, 0, 0],
      [5, 0, 0, 0],
      [1, 2, 3, 4],
      [5, 0, 0, 0],
      // epb_flags: inbound; epb_queue: 3; opt_endofopt.
      [2, 0, 4, 0],
      [1, 0, 0, 0],
      [6, 0, 4, 0],
      [3, 0, 0, 0],
      [0, 0, 0, 0],
      [60, 0, 0, 0],
    ];
    assert.equal([...readFileSync(path).subarray(before)], expected.flat());
  }));

test('blocks of two writers do not run into each other', () =>
  withFolder((folder) => {
    const path = join(folder, 'x.pcapng');
    createPcapng(path, 'a test', [port, { ...port, name: 'net_null1' }]);
    const writers = [new PcapngWriter(path), new PcapngWriter(path)];
    for (let packet = 0; packet < 2000; packet++) {
      for (const [source, writer] of writers.entries()) {
        writer.write(pattern(1000 + source), { ...received(START), source, direction: PacketDirection.SENT });
      }
    }
    for (const writer of writers) writer.close();
    const lengths = readAll(path).map(({ bytes }) => bytes.length);
    assert.is(lengths.filter((length) => length === 1000).length, 2000);
    assert.is(lengths.filter((length) => length === 1001).length, 2000);
  }));

test('a closed writer, a packet that is too long and a folder that is missing are errors', () =>
  withFolder((folder) => {
    const path = join(folder, 'x.pcapng');
    createPcapng(path, 'a test', [port]);
    const writer = new PcapngWriter(path);
    const codeOf = (action: () => void): string | undefined => {
      try {
        action();
      } catch (error) {
        if (error instanceof VirtioError) return error.code;
      }
      return undefined;
    };
    assert.is(
      codeOf(() => writer.write(new Uint8Array(262_145), received(START))),
      ErrorCode.INVALID_ARGUMENT,
    );
    writer.close();
    writer.close();
    assert.is(
      codeOf(() => writer.write(pattern(60), received(START))),
      ErrorCode.WRONG_STATE,
    );
    assert.is(
      codeOf(() => createPcapng(join(folder, 'none', 'x'), 'a test', [])),
      ErrorCode.NOT_FOUND,
    );
  }));

test('a full disk is an error, once', () => {
  const writer = new PcapngWriter('/dev/full');
  writer.write(pattern(60), received(START));
  assert.throws(
    () => writer.flush(),
    (error: unknown) => error instanceof VirtioError,
  );
  writer.close();
});

test.run();
