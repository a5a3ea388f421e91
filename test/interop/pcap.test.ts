/** tshark and tcpdump read what we write. */

import { createHash } from 'node:crypto';
import { join } from 'node:path';

import { suite } from 'uvu';
import * as assert from 'uvu/assert';

import { PacketDirection } from '../../driver/pcap/format.js';
import { PcapWriter } from '../../driver/pcap/pcap-writer.js';
import { createPcapng, PcapngWriter } from '../../driver/pcap/pcapng-writer.js';
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

test('tshark reads pcapng: the interface of each packet, and its direction', () =>
  withFolder(async (folder) => {
    const path = join(folder, 'x.pcapng');
    const interfaces = ['net_null0', 'net_tap1'].map((name, id) => ({
      name,
      description: `port ${id}`,
      macAddress: Uint8Array.of(2, 0, 0, 0, 0, id),
    }));
    createPcapng(path, 'a test', interfaces);
    const writer = new PcapngWriter(path);
    const { RECEIVED, SENT } = PacketDirection;
    writer.write(pattern(60), { source: 1, direction: RECEIVED, queue: 5, timestampNs: 1_700_000_000_000_000_001n });
    writer.write(pattern(61), { source: 0, direction: SENT, queue: 0, timestampNs: 1_700_000_000_000_000_002n });
    writer.close();
    const seen = await seenPackets(path);
    assert.equal(
      seen.map(({ timestampNs, length }) => [timestampNs, length]),
      [
        [1_700_000_000_000_000_001n, 60],
        [1_700_000_000_000_000_002n, 61],
      ],
    );
    const fields = ['-e', 'frame.interface_name', '-e', 'frame.packet_flags_direction'];
    const lines = await runCommand('tshark', ['-n', '-r', path, '-T', 'fields', ...fields]);
    assert.equal(lines.split('\n').filter(Boolean), ['net_tap1\t0x00000001', 'net_null0\t0x00000002']);
  }));

test.run();
