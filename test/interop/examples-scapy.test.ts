/** The layer-3 forwarder beside scapy: of packets of every kind it forwards those that it must, and changes what it must (RFC 1812 §5.2, §5.3). */

import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';

import { pcapPort } from '../../driver/backend/ports/built-in.js';
import { PcapReader } from '../../driver/pcap/pcap-reader.js';
import { startCli } from '../support/cli.js';
import { runCommand } from '../support/commands.js';
import { GuestBackend } from '../support/guest-backend.js';
import { skipWithout } from '../support/skip.js';
import { withFolder } from '../support/temp-folder.js';
import { PATIENCE_MS, until } from '../support/until.js';

export const timeBoundSeconds = 120;

const test = skipWithout(suite('examples, scapy'), 'python3', 'scapy');

const GENERATOR = fileURLToPath(new URL('../../../test/support/route_packets.py', import.meta.url));
const L3FWD = fileURLToPath(new URL('../../examples/l3fwd.js', import.meta.url));
const SEED = 7;

/** The packets of a file, with the source address left out: it is the router's. */
function packetsOf(path: string): string[] {
  const packets: string[] = [];
  const reader = PcapReader.open(path);
  try {
    for (let packet = reader.next(); packet !== undefined; packet = reader.next()) {
      const bytes = Buffer.from(packet.bytes);
      packets.push(bytes.fill(0, 6, 12).toString('hex'));
    }
  } finally {
    reader.close();
  }
  return packets;
}

test('l3fwd: options, fragments, padding, the last hop, bad headers; the longest prefix of two', () =>
  withFolder(async (folder) => {
    await runCommand('/usr/bin/python3', [GENERATOR, folder, String(SEED)], { timeoutMs: 60_000 });
    const wanted = [1, 2].map((port) => packetsOf(join(folder, `wanted-${port}.pcap`)));
    assert.ok(wanted.every((packets) => packets.length > 20));
    const outputs = [1, 2].map((port) => pcapPort({ output: join(folder, `out-${port}.pcap`) }));
    const ports = [pcapPort({ input: join(folder, 'in.pcap') }), ...outputs];
    const backends: GuestBackend[] = [];
    try {
      for (const port of ports) backends.push(await GuestBackend.start({ port }));
      const routes = ['10.0.0.0/8=1,02:00:00:00:0a:01', '10.1.0.0/16=2,02:00:00:00:0a:02'];
      const addresses = backends.map(({ path }) => `vhost-user:${path}`);
      const cli = startCli([...addresses, ...routes.flatMap((route) => ['--route', route])], { script: L3FWD });
      try {
        await cli.printed(/routing/);
        const moved = (): number =>
          backends.reduce((sum, { device }, port) => sum + device.statistics(port === 0 ? 0 : 1).packets, 0);
        const expected = packetsOf(join(folder, 'in.pcap')).length + wanted[0]!.length + wanted[1]!.length;
        await until(() => moved() >= expected, `${expected} packets`, PATIENCE_MS);
      } finally {
        cli.kill('SIGINT');
        await cli.done;
      }
    } finally {
      for (const backend of backends) await backend.close();
    }
    for (const port of [1, 2])
      assert.equal(packetsOf(join(folder, `out-${port}.pcap`)), wanted[port - 1], `port ${port}`);
  }));

test.run();
