/** A capture of real traffic holds all that it is meant to hold, and is read here as tshark reads it. */

import { createHash } from 'node:crypto';
import { existsSync, readdirSync } from 'node:fs';
import { join } from 'node:path';

import { suite } from 'uvu';
import * as assert from 'uvu/assert';

import { PcapReader } from '../../driver/pcap/pcap-reader.js';
import { runCommand } from '../support/commands.js';
import {
  makeRealCapture,
  REAL_CAPTURE_FRAME_MAX,
  REAL_CAPTURE_PACKETS_MAX,
  REAL_CAPTURE_PEERS,
} from '../support/real-capture.js';
import { skipWithout, skipWithoutRoot } from '../support/skip.js';
import { withFolder } from '../support/temp-folder.js';
import { countMatching, type SeenPacket, seenPackets } from '../support/tshark.js';

/** Every packet that our reader finds, in tshark's terms. */
function readPackets(path: string): SeenPacket[] {
  const reader = PcapReader.open(path);
  try {
    return [...reader].map(({ timestampNs, bytes, originalLength }) => ({
      timestampNs,
      length: bytes.length,
      originalLength,
      md5: createHash('md5').update(bytes).digest('hex'),
    }));
  } finally {
    reader.close();
  }
}

/** Display filters, and how many packets at least: how TCP cuts its segments differs from run to run. */
const KINDS = {
  arp: 2,
  'icmp.type == 8 and not vlan': 15,
  'icmp.type == 0 and not vlan': 15,
  'icmpv6.type == 128': 10,
  'icmpv6.type == 135': 1,
  'icmpv6.type == 136': 1,
  'udp and dns.flags.response == 0': 2,
  'udp and dns.flags.response == 1 and dns.a == 192.0.2.7': 1,
  'udp and dns.aaaa == 2001:db8::7': 1,
  'tcp and dns.flags.response == 1': 1,
  'tcp and not vlan': 500,
  'tcp and ipv6': 20,
  'udp.length == 72': 200,
  'vlan.id == 100 and arp': 2,
  'vlan.id == 100 and icmp': 20,
  'vlan.id == 100 and tcp': 50,
  'frame.len > 9000': 20,
} as const;

const namespaces = (): string[] => (existsSync('/run/netns') ? readdirSync('/run/netns') : []);

const test = skipWithoutRoot(skipWithout(suite('real capture'), ...REAL_CAPTURE_PEERS, 'tshark'));

test('all kinds of traffic are in it, read here as by tshark, in every format', () =>
  withFolder(async (folder) => {
    const before = namespaces();
    const path = join(folder, 'real.pcap');
    await makeRealCapture(path);
    assert.equal(namespaces(), before, 'namespaces are removed');

    for (const [filter, least] of Object.entries(KINDS)) {
      const count = await countMatching(path, filter);
      assert.ok(count >= least, `${filter}: ${count} packets, at least ${least} expected`);
    }
    const seen = await seenPackets(path);
    assert.ok(seen.length < REAL_CAPTURE_PACKETS_MAX, `${seen.length} packets`);
    assert.is(Math.max(...seen.map(({ length }) => length)), REAL_CAPTURE_FRAME_MAX - 4);
    assert.ok(
      seen.every(({ length, originalLength }) => length === originalLength),
      'packets are whole',
    );
    const read = readPackets(path);
    assert.is(read.length, seen.length);
    assert.equal(read, seen);

    for (const format of ['pcapng', 'pcap', 'nsecpcap']) {
      const converted = join(folder, `converted.${format}`);
      await runCommand('editcap', ['-F', format, path, converted]);
      assert.equal(readPackets(converted), await seenPackets(converted), format);
    }
    console.log(`${seen.length} packets`);
  }));

test('where it cannot be made, nothing of it stays', async () => {
  const before = namespaces();
  let message = '';
  await makeRealCapture('/nowhere/x.pcap').catch((error: Error) => {
    message = error.message;
  });
  assert.match(message, /tcpdump.*\/nowhere\/x\.pcap/s);
  assert.equal(namespaces(), before);
});

test.run();
