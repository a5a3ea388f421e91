/** tshark and tcpdump read what we write. */

import { createHash } from 'node:crypto';
import { join } from 'node:path';

import { suite } from 'uvu';
import * as assert from 'uvu/assert';

import { PcapWriter } from '../../driver/pcap/pcap-writer.js';
import { pattern } from '../support/capture-files.js';
import { runCommand } from '../support/commands.js';
import { skipWithout } from '../support/skip.js';
import { withFolder } from '../support/temp-folder.js';
import { seenPackets } from '../support/tshark.js';

const LENGTHS = [14, 60, 64, 1514, 9018, 65_562, 262_144];

const test = skipWithout(suite('capture files, other readers'), 'tshark', 'tcpdump');

test('tshark and tcpdump read every packet, to the nanosecond', () =>
  withFolder(async (folder) => {
    const path = join(folder, 'x.pcap');
    const writer = PcapWriter.create(path);
    const packets = LENGTHS.map((length, index) => ({
      bytes: pattern(length, index),
      timestampNs: 1_700_000_000_000_000_000n + BigInt(index) * 1_000_000_001n,
    }));
    for (const { bytes, timestampNs } of packets) writer.write(bytes, timestampNs);
    writer.close();
    assert.equal(
      await seenPackets(path),
      packets.map(({ bytes, timestampNs }) => ({
        timestampNs,
        length: bytes.length,
        originalLength: bytes.length,
        md5: createHash('md5').update(bytes).digest('hex'),
      })),
    );
    const lines = (await runCommand('tcpdump', ['-n', '-q', '-tt', '--nano', '-r', path])).split('\n').filter(Boolean);
    const times = lines.map((line) => /^\d+\.\d{9}/.exec(line)?.[0]).filter((time) => time !== undefined);
    assert.is(times.length, LENGTHS.length);
    assert.is(times.at(-1), '1700000006.000000006');
  }));

test('a packet that was cut off at the snap length keeps its length', () =>
  withFolder(async (folder) => {
    const path = join(folder, 'x.pcap');
    const writer = PcapWriter.create(path, { snapLength: 96 });
    writer.write(pattern(1514), 1n);
    writer.close();
    const [packet] = await seenPackets(path);
    assert.equal([packet?.length, packet?.originalLength], [96, 1514]);
  }));

test.run();
