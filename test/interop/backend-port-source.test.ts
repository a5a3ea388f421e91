/** tshark reads what the source port sends. */

import { join } from 'node:path';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { sourcePort } from '../../driver/backend/ports/built-in.js';
import * as source from '../../driver/backend/ports/source.js';
import { PcapWriter } from '../../driver/pcap/pcap-writer.js';
import { PortHarness } from '../support/backend-port-harness.js';
import { runCommand } from '../support/commands.js';
import { skipWithout } from '../support/skip.js';
import { withFolder } from '../support/temp-folder.js';
import { countMatching } from '../support/tshark.js';

const test = skipWithout(suite('source port, tshark'), 'tshark');

test('UDP packets of every length are whole, their header checksums right, each flow with an address and a port', () =>
  withFolder(async (folder) => {
    const path = join(folder, 'x.pcap');
    const writer = PcapWriter.create(path);
    for (const bytes of [56, 57, 64, 1518, 'imix'] as const) {
      const spec = sourcePort({ bytes, protocol: 'udp', flows: 300, packets: 600 });
      using harness = new PortHarness(source, spec.options);
      for (let sent = harness.turn(); sent.length > 0; sent = harness.turn()) {
        for (const packet of sent) writer.write(packet, 1n);
      }
    }
    writer.close();
    const count = (filter: string): Promise<number> => countMatching(path, filter);
    assert.is(await count('udp.dstport == 9 and ip.dst == 198.19.0.1 and ip.flags.df == 1'), 3000);
    assert.is(await count('_ws.malformed or _ws.expert.severity == error'), 0);
    const columns = ['ip.checksum.status', 'ip.src', 'udp.srcport', 'eth.src'];
    const fields = columns.flatMap((name) => ['-e', name]);
    const checked = ['-n', '-o', 'ip.check_checksum:TRUE', '-r', path, '-T', 'fields', ...fields];
    const rows = (await runCommand('tshark', checked, { timeoutMs: 60_000 }))
      .trim()
      .split('\n')
      .map((row) => row.split('\t'));
    assert.is(rows.length, 3000);
    assert.ok(
      rows.every(([status]) => status === '1'),
      'header checksums',
    );
    for (const [column, name] of columns.entries()) {
      if (column > 0) assert.is(new Set(rows.map((row) => row[column])).size, 300, name);
    }
  }));

test.run();
