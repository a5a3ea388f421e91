/** Real traffic through `virtio-pmd loopback`: every packet comes back as it was, and tshark reads the same in it. */

import { join } from 'node:path';

import { suite } from 'uvu';
import * as assert from 'uvu/assert';

import { runCli } from '../support/cli.js';
import { runCommand } from '../support/commands.js';
import { makeRealCapture, REAL_CAPTURE_PEERS } from '../support/real-capture.js';
import { skipWithout, skipWithoutRoot } from '../support/skip.js';
import { withFolder } from '../support/temp-folder.js';
import { countMatching, seenPackets } from '../support/tshark.js';

export const timeBoundSeconds = 300;

/** What is in the capture, as display filters: all of it has to be found in what comes back. */
const PROTOCOLS = ['arp', 'icmp', 'icmpv6', 'dns', 'tcp', 'tcp and ipv6', 'udp', 'vlan', 'frame.len > 9000'] as const;

/** The protocols of each packet as tshark dissects them, and what it has to say against them. */
async function dissected(path: string): Promise<string> {
  const fields = ['frame.number', 'frame.protocols', '_ws.expert.message'].flatMap((field) => ['-e', field]);
  return await runCommand('tshark', ['-n', '-r', path, '-T', 'fields', ...fields], { timeoutMs: 120_000 });
}

const test = skipWithoutRoot(skipWithout(suite('real traffic through loopback'), ...REAL_CAPTURE_PEERS, 'tshark'));

test('ARP, ping, DNS, TCP in bulk, IPv6, VLAN and jumbo frames come back byte for byte, over both transports', () =>
  withFolder(async (folder) => {
    const input = join(folder, 'real.pcap');
    await makeRealCapture(input);
    const packets = await seenPackets(input);
    const protocols = await dissected(input);
    for (const filter of PROTOCOLS) assert.ok((await countMatching(input, filter)) > 0, `the capture has ${filter}`);

    for (const transport of ['pci', 'vhost-user']) {
      const output = join(folder, `${transport}.pcap`);
      const end = await runCli([
        'loopback',
        '--json',
        '--transport',
        transport,
        '--pcap-in',
        input,
        '--pcap-out',
        output,
      ]);
      assert.is(end.status, 0, end.stderr);
      assert.equal(end.left, []);
      const { sent, received, verified, size } = JSON.parse(end.stdout) as Record<string, unknown>;
      const all = packets.length;
      assert.equal({ sent, received, verified, size }, { sent: all, received: all, verified: all, size: 'pcap' });

      assert.equal(await seenPackets(output), packets, `${transport}: times, lengths and bytes of every packet`);
      assert.is(await dissected(output), protocols, `${transport}: tshark finds the same protocols`);
      assert.match(await runCommand('capinfos', ['-t', '-r', '-T', output]), /\tnsecpcap\n/, 'pcap with nanoseconds');
    }
    console.log(`${packets.length} packets each way`);
  }));

test.run();
