/** Capture files that are read: both formats in all their forms, and what is said about damaged ones. */

import { writeFileSync } from 'node:fs';
import { join } from 'node:path';

import fc from 'fast-check';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';

import { VirtioError } from '../../driver/errors.js';
import type { CapturedPacket } from '../../driver/pcap/captured-packet.js';
import { PcapReader } from '../../driver/pcap/pcap-reader.js';
import {
  Bytes,
  block,
  enhancedPacket,
  interfaceDescription,
  join as joinBytes,
  makePcap,
  oldPacket,
  pattern,
  sectionHeader,
  simplePacket,
} from '../support/capture-files.js';
import { withFolder } from '../support/temp-folder.js';

const ORDERS = [true, false];

/** Reads a whole file of these bytes. */
const read = (file: Uint8Array): Promise<CapturedPacket[]> =>
  withFolder((folder) => {
    const path = join(folder, 'x.pcap');
    writeFileSync(path, file);
    const reader = PcapReader.open(path);
    try {
      return [...reader];
    } finally {
      reader.close();
    }
  });

/** Returns the error that reading these bytes ends with, and how many packets came before. */
const readDamaged = (file: Uint8Array): Promise<{ readonly error: unknown; readonly packets: number }> =>
  withFolder((folder) => {
    const path = join(folder, 'x.pcap');
    writeFileSync(path, file);
    let packets = 0;
    let reader: PcapReader | undefined;
    try {
      reader = PcapReader.open(path);
      while (reader.next() !== undefined) packets++;
      return { error: undefined, packets };
    } catch (error) {
      return { error, packets };
    } finally {
      reader?.close();
    }
  });

/** Asserts that reading ends with BAD_FORMAT, after `packets` packets, and says what `message` matches. */
async function assertBad(file: Uint8Array, message: RegExp, packets = 0): Promise<void> {
  const outcome = await readDamaged(file);
  assert.instance(outcome.error, VirtioError);
  const error = outcome.error as VirtioError;
  assert.is(error.code, 'BAD_FORMAT');
  assert.match(error.message, message);
  assert.is(outcome.packets, packets);
}

const packet = (length: number, seconds = 1, fraction = 5) => ({ seconds, fraction, bytes: pattern(length, seconds) });

const test = suite('capture files, read');

test('pcap §4: micro- and nanoseconds, in both byte orders', async () => {
  for (const little of ORDERS) {
    for (const nanoseconds of [false, true]) {
      const file = makePcap({ little, nanoseconds }, [
        { seconds: 1_700_000_000, fraction: 123_456, bytes: pattern(60) },
        { seconds: 0xffff_ffff, fraction: 1, bytes: pattern(64), originalLength: 1514 },
        { seconds: 0, fraction: 0, bytes: pattern(0) },
      ]);
      const scale = nanoseconds ? 1n : 1000n;
      assert.equal(await read(file), [
        { timestampNs: 1_700_000_000_000_000_000n + 123_456n * scale, bytes: pattern(60), originalLength: 60 },
        { timestampNs: 4_294_967_295_000_000_000n + scale, bytes: pattern(64), originalLength: 1514 },
        { timestampNs: 0n, bytes: pattern(0), originalLength: 0 },
      ]);
    }
  }
});

test('pcap §4: what stands above the link type is not part of it', async () => {
  const file = makePcap({ little: true, nanoseconds: true, linkType: 0x1400_0001 }, [packet(60)]);
  assert.is((await read(file)).length, 1);
});

test('pcapng §4: packets of all three kinds, in both byte orders', async () => {
  for (const little of ORDERS) {
    const file = joinBytes(
      sectionHeader(little),
      interfaceDescription(little),
      enhancedPacket(little, 0, 1_700_000_000_000_001n, pattern(61)),
      oldPacket(little, 0, 2n, pattern(62)),
      simplePacket(little, pattern(63)),
    );
    assert.equal(await read(file), [
      { timestampNs: 1_700_000_000_000_001_000n, bytes: pattern(61), originalLength: 61 },
      { timestampNs: 2000n, bytes: pattern(62), originalLength: 62 },
      { timestampNs: 0n, bytes: pattern(63), originalLength: 63 },
    ]);
  }
});

test('pcapng §4.2: several interfaces, each with its own clock', async () => {
  const file = joinBytes(
    sectionHeader(true),
    interfaceDescription(true, { resolution: 9 }),
    interfaceDescription(true, { resolution: 0x80 | 10 }),
    interfaceDescription(true, { resolution: 3, offsetSeconds: 100n }),
    interfaceDescription(true, { resolution: 0 }),
    enhancedPacket(true, 1, 1536n, pattern(60)),
    enhancedPacket(true, 0, 7n, pattern(60)),
    enhancedPacket(true, 2, 2500n, pattern(60)),
    enhancedPacket(true, 3, 9n, pattern(60)),
  );
  const times = (await read(file)).map(({ timestampNs }) => timestampNs);
  assert.equal(times, [1_500_000_000n, 7n, 102_500_000_000n, 9_000_000_000n]);
});

test('pcapng §4.1: each section has its own byte order and interfaces', async () => {
  const file = joinBytes(
    sectionHeader(true),
    interfaceDescription(true, { resolution: 9 }),
    enhancedPacket(true, 0, 1n, pattern(60)),
    sectionHeader(false),
    interfaceDescription(false),
    enhancedPacket(false, 0, 1n, pattern(61)),
  );
  assert.equal(
    (await read(file)).map(({ timestampNs, bytes }) => [timestampNs, bytes.length]),
    [
      [1n, 60],
      [1000n, 61],
    ],
  );
});

test('pcapng §4.4: a simple packet is cut off at the snap length of interface 0', async () => {
  const file = joinBytes(
    sectionHeader(true),
    interfaceDescription(true, { snapLength: 100 }),
    simplePacket(true, pattern(100), 1514),
  );
  assert.equal(await read(file), [{ timestampNs: 0n, bytes: pattern(100), originalLength: 1514 }]);
});

test('pcapng §3.1: blocks that mean nothing here are passed over, however large', async () => {
  const file = joinBytes(
    sectionHeader(true),
    block(true, 4, pattern(3)),
    interfaceDescription(true),
    block(true, 0x8000_0001, pattern(2_000_000)),
    enhancedPacket(true, 0, 1n, pattern(60)),
    block(true, 5, pattern(40)),
  );
  assert.is((await read(file)).length, 1);
});

test('the longest packet, and one byte more', async () => {
  const form = { little: true, nanoseconds: true };
  assert.is((await read(makePcap(form, [packet(262_144)])))[0]?.bytes.length, 262_144);
  await assertBad(makePcap(form, [packet(60), packet(262_145)]), /packet 2 at byte 100: a length of 262145 bytes/, 1);
});

test('packets stay as they are when later ones are read', async () => {
  const made = Array.from({ length: 2000 }, (_, index) => packet(1000, index));
  const blocks = made.map(({ bytes }) => enhancedPacket(true, 0, 1n, bytes));
  for (const file of [
    makePcap({ little: true, nanoseconds: true }, made),
    joinBytes(sectionHeader(true), interfaceDescription(true), ...blocks),
  ]) {
    const packets = await read(file);
    assert.is(packets.length, 2000);
    assert.ok(packets.every(({ bytes }, index) => Buffer.compare(bytes, pattern(1000, index)) === 0));
  }
});

test('a file that was cut off anywhere: BAD_FORMAT, with packet and byte', async () => {
  const pcap = makePcap({ little: true, nanoseconds: true }, [packet(60), packet(70)]);
  for (let length = 25; length < pcap.length; length++) {
    if (length === 24 + 76) continue;
    const second = length > 24 + 76;
    const message = second ? /packet 2 at byte 100: the file ends after/ : /packet 1 at byte 24: the file ends after/;
    await assertBad(pcap.subarray(0, length), message, second ? 1 : 0);
  }
  const [section, description] = [sectionHeader(false), interfaceDescription(false)];
  const blockEnds = [section.length, section.length + description.length];
  const pcapng = joinBytes(section, description, enhancedPacket(false, 0, 1n, pattern(61)));
  for (let length = 1; length < pcapng.length; length++) {
    const { error, packets } = await readDamaged(pcapng.subarray(0, length));
    assert.is(
      error instanceof VirtioError ? error.code : 'none',
      blockEnds.includes(length) ? 'none' : 'BAD_FORMAT',
      `at ${length}`,
    );
    assert.is(packets, 0);
  }
});

test('a pcap header that is cut off', () =>
  assertBad(makePcap({ little: true, nanoseconds: true }, []).subarray(0, 20), /after 20 of the 24 bytes/));

test('a version that nobody knows', async () => {
  await assertBad(makePcap({ little: true, nanoseconds: false, version: [3, 0] }, []), /version 3\.0/);
  await assertBad(makePcap({ little: true, nanoseconds: false, version: [2, 1] }, []), /version 2\.1/);
  await assertBad(sectionHeader(true, 2), /version 2/);
});

test('frames that are not Ethernet frames, by name', async () => {
  await assertBad(
    makePcap({ little: false, nanoseconds: false, linkType: 113 }, []),
    /LINUX_SLL \(113\), not Ethernet/,
  );
  const file = joinBytes(
    sectionHeader(true),
    interfaceDescription(true),
    interfaceDescription(true, { linkType: 101 }),
    enhancedPacket(true, 0, 1n, pattern(60)),
    enhancedPacket(true, 1, 1n, pattern(60)),
  );
  await assertBad(file, /RAW \(101\), not Ethernet/, 1);
});

test('a packet of an interface that was never described', () =>
  assertBad(joinBytes(sectionHeader(true), enhancedPacket(true, 0, 1n, pattern(60))), /interface 0 of 0/));

test('blocks whose lengths cannot be', async () => {
  const words = (...values: number[]) => new Bytes(true).u32(...values).done();
  const head = joinBytes(sectionHeader(true), interfaceDescription(true));
  await assertBad(joinBytes(head, words(6, 8, 0)), /a block cannot have 8 bytes/);
  await assertBad(joinBytes(head, words(6, 33, 0)), /a block cannot have 33 bytes/);
  await assertBad(joinBytes(head, words(99, 12, 16)), /12 bytes by its beginning, 16 by its end/);
  await assertBad(joinBytes(head, block(true, 6, pattern(16))), /too short/);
  await assertBad(joinBytes(head, block(true, 6, words(0, 0, 0, 61, 61, 0))), /too short/);
  await assertBad(joinBytes(head, words(6, 0xffff_fffc, 0, 0, 0, 60, 60)), /the file ends/);
  await assertBad(joinBytes(head, block(true, 6, words(0, 0, 0, 0xffff_ffff, 60, 0))), /a length of 4294967295/);
  await assertBad(joinBytes(sectionHeader(true), block(true, 1, new Uint8Array(70_000))), /70012 bytes/);
  await assertBad(joinBytes(sectionHeader(true), block(true, 1, words(1, 0, 9, 0xffff0009))), /option reaches/);
  await assertBad(words(0x0a0d0d0a, 28, 0, 0, 0, 0, 28), /without byte order/);
});

test('pcapng: packets are counted across interfaces and sections', () =>
  assertBad(
    joinBytes(
      sectionHeader(true),
      interfaceDescription(true),
      enhancedPacket(true, 0, 1n, pattern(60)),
      sectionHeader(false),
      interfaceDescription(false),
      simplePacket(false, pattern(60)),
      enhancedPacket(false, 1, 1n, pattern(60)),
    ),
    /packet 3 at byte \d+: interface 1 of 1/,
    2,
  ));

test('a hostile length takes no memory', async () => {
  const before = process.memoryUsage().arrayBuffers;
  const hostile = makePcap({ little: true, nanoseconds: true }, [packet(60)]);
  new DataView(hostile.buffer).setUint32(24 + 8, 0xffff_ffff, true);
  await assertBad(hostile, /a length of 4294967295 bytes/);
  assert.ok(process.memoryUsage().arrayBuffers - before < 4_000_000);
});

test('what is no capture is named', async () => {
  await assertBad(new Uint8Array(0), /not a capture file: it is empty/);
  await assertBad(Uint8Array.of(0x1f, 0x8b, 8, 0, 0, 0), /it looks like gzip data/);
  await assertBad(new TextEncoder().encode('frame,time\n1,0.5\n'), /it looks like text/);
  await assertBad(Uint8Array.of(0x7f, 0x45, 0x4c, 0x46, 2, 1), /it looks like a program/);
  await assertBad(Uint8Array.of(0, 1, 2, 3), /it begins with 00010203/);
});

test('a path that cannot be read: the code says why', async () => {
  const codeOf = (path: string) => {
    try {
      PcapReader.open(path).close();
      return 'none';
    } catch (error) {
      return (error as VirtioError).code;
    }
  };
  await withFolder((folder) => {
    assert.is(codeOf(join(folder, 'nowhere.pcap')), 'NOT_FOUND');
    assert.is(codeOf(folder), 'WRONG_KIND');
  });
});

test('once damaged always damaged; once closed always closed', () =>
  withFolder((folder) => {
    const path = join(folder, 'x.pcap');
    const trailer = new Bytes(true).u32(16).done();
    const damaged = enhancedPacket(true, 0, 1n, pattern(60));
    damaged.set(trailer, damaged.length - 4);
    const sound = enhancedPacket(true, 0, 1n, pattern(60));
    writeFileSync(path, joinBytes(sectionHeader(true), interfaceDescription(true), damaged, sound));
    const reader = PcapReader.open(path);
    assert.throws(() => reader.next(), /16 by its end/);
    assert.throws(() => reader.next(), /16 by its end/);
    reader.close();
    reader.close();
    assert.throws(() => reader.next(), /is closed/);
  }));

test('bytes changed at random: packets, or BAD_FORMAT, and nothing else', async () => {
  const sound = [
    makePcap({ little: true, nanoseconds: true }, [packet(60), packet(1514), packet(0)]),
    joinBytes(
      sectionHeader(true),
      interfaceDescription(true, { resolution: 9, offsetSeconds: 1n }),
      enhancedPacket(true, 0, 1n, pattern(60)),
      simplePacket(true, pattern(64)),
      oldPacket(true, 0, 1n, pattern(33)),
    ),
  ];
  const changes = fc.array(
    fc.tuple(fc.nat(), fc.oneof(fc.constantFrom(0, 0xff, 0x7f, 0x80), fc.integer({ max: 255 }))),
    {
      minLength: 1,
      maxLength: 6,
    },
  );
  await fc.assert(
    fc.asyncProperty(fc.constantFrom(...sound), changes, async (file, edits) => {
      const copy = file.slice();
      for (const [at, value] of edits) copy[at % copy.length] = value;
      const { error } = await readDamaged(copy);
      assert.ok(error === undefined || (error instanceof VirtioError && error.code === 'BAD_FORMAT'), String(error));
    }),
    { numRuns: process.env['VIRTIO_PMD_FULL'] === undefined ? 500 : 50_000 },
  );
});

test.run();
