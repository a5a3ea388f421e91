/** The metrics of the back-end in both formats, read by Prometheus' own library for Python. */

import { spawnSync } from 'node:child_process';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { startCli } from '../support/cli.js';
import { withDaemon } from '../support/cli-daemon.js';
import { skipWithout } from '../support/skip.js';
import { withFolder } from '../support/temp-folder.js';

const JUDGE = fileURLToPath(new URL('../../../test/support/metrics_judge.py', import.meta.url));

interface Family {
  readonly type: string;
  readonly help: string;
  readonly samples: readonly (readonly [name: string, labels: Readonly<Record<string, string>>, value: number])[];
}

const test = skipWithout(suite('metrics, judged by others'), 'python3', 'prometheus-client');

function judged(type: string, text: string): Readonly<Record<string, Family>> {
  const { status, stdout, stderr } = spawnSync('/usr/bin/python3', [JUDGE, type], { input: text, encoding: 'utf8' });
  assert.is(status, 0, `${stderr}\n${text}`);
  return JSON.parse(stdout) as Record<string, Family>;
}

test('the judge refuses what is no OpenMetrics', () => {
  const wrong = ['a 1\n', '# TYPE a counter\na 1\n# EOF\n', 'a{b="c} 1\n# EOF\n'];
  for (const input of wrong) {
    const { status } = spawnSync('/usr/bin/python3', [JUDGE, 'application/openmetrics-text'], { input });
    assert.is(status, 1, input);
  }
});

test('OpenMetrics and plain text with traffic: both are read, and say the same', () =>
  withFolder((folder) => {
    const path = join(folder, 'x.sock');
    return withDaemon([`--socket-path=${path}`, '--mode=switch', '--metrics=0'], async (daemon) => {
      const event = await daemon.waitFor((each) => each['metrics'] !== undefined, 'the address');
      const guest = startCli(['loopback', '--connect', path, '--duration', '60']);
      try {
        await daemon.waitFor((each) => each['state'] === 'started' && each['ring'] === 1, 'its rings');
        const read = async (accept: string): Promise<Readonly<Record<string, Family>>> => {
          const response = await fetch(String(event['metrics']), { headers: { accept } });
          const type = response.headers.get('content-type') ?? '';
          assert.ok(type.startsWith(accept), type);
          return judged(type, await response.text());
        };
        const plain = await read('text/plain');
        const open = await read('application/openmetrics-text');
        assert.equal(Object.keys(open).sort(), Object.keys(plain).sort());
        for (const [name, { type, help, samples }] of Object.entries(open)) {
          assert.is(type, plain[name]!.type, name);
          assert.is(help, plain[name]!.help, name);
          const labels = (all: Family['samples']): string[] => all.map(([, each]) => JSON.stringify(each)).sort();
          assert.equal(labels(samples), labels(plain[name]!.samples), name);
        }
        const packets = open['virtio_pmd_packets']!;
        assert.is(packets.type, 'counter');
        const sent = packets.samples.find(([, { queue }]) => queue === 'transmitq 0');
        assert.is(sent?.[0], 'virtio_pmd_packets_total');
        assert.equal(sent?.[1], { socket: path, connection: '1', queue: 'transmitq 0' });
        assert.is(open['virtio_pmd_ring_entries']!.type, 'gauge');
      } finally {
        guest.kill('SIGINT');
        await guest.done;
      }
    });
  }));

test.run();
