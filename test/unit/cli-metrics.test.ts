/** The metrics that any command makes of its snapshots, and which format an Accept header gets. */

import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { wantsOpenMetrics } from '../../driver/cli/metrics/accept.js';
import { MetricsServer } from '../../driver/cli/metrics/metrics-server.js';
import { SnapshotMetrics } from '../../driver/cli/metrics/snapshot-metrics.js';
import type { PortSnapshot, Snapshot } from '../../driver/cli/snapshot/snapshot.js';
import { parseMetrics } from '../support/cli-metrics.js';
import { queueSnapshot, snapshotAt } from '../support/snapshots.js';

const test = suite('metrics of snapshots');

const port: PortSnapshot = {
  name: '0: net_virtio_user0',
  kind: 'net_virtio_user',
  labels: { port: 0, device: 'net_virtio_user0' },
  queues: [
    queueSnapshot('rx 0', {
      packets: 7,
      drops: { tooLong: 2 },
      notifications: { kind: 'kick', sent: 5, saved: 6 },
      ring: { size: 256, withDevice: 250 },
    }),
    queueSnapshot('tx 0', { notifications: { kind: 'call', sent: 1, saved: 0 }, ring: { size: 512 } }),
    queueSnapshot('tx 1'),
  ],
};
const threads = [{ name: 'lcore-1', id: 77, cpuSeconds: 1.5 }];
const snapshot: Snapshot = { ...snapshotAt(1, [port]), threads };

test('ports of any command: counters, kicks and calls apart, rings as far as they are known, threads', async () => {
  const { text } = await new SnapshotMetrics(() => snapshot, ['port', 'device']).print();
  const families = parseMetrics(text);
  const value = (family: string, queue: string, more = ''): number | undefined =>
    families.get(`virtio_pmd_${family}`)?.samples.get(`port="0",device="net_virtio_user0",queue="${queue}"${more}`);
  assert.is(value('packets_total', 'rx 0'), 7);
  assert.is(value('drops_total', 'rx 0', ',reason="too_long"'), 2);
  assert.equal([value('kicks_sent_total', 'rx 0'), value('kicks_saved_total', 'rx 0')], [5, 6]);
  assert.is(value('calls_sent_total', 'rx 0'), undefined);
  assert.equal([value('calls_sent_total', 'tx 0'), value('kicks_sent_total', 'tx 0')], [1, undefined]);
  assert.equal([value('ring_entries', 'rx 0'), value('ring_entries_with_device', 'rx 0')], [256, 250]);
  assert.equal([value('ring_entries', 'tx 0'), value('ring_entries_with_device', 'tx 0')], [512, undefined]);
  assert.is(value('ring_entries', 'tx 1'), undefined);
  assert.is(families.get('virtio_pmd_thread_cpu_seconds_total')?.samples.get('thread="lcore-1",id="77"'), 1.5);
});

test('all of one scrape is of one snapshot', async () => {
  let taken = 0;
  const metrics = new SnapshotMetrics(() => ({ ...snapshot, at: ++taken }), ['port', 'device']);
  await metrics.print();
  assert.is(taken, 1);
  await metrics.print('application/openmetrics-text');
  assert.is(taken, 2);
});

/** What real clients send, and what is theirs to expect (RFC 9110 §12.5.1, OpenMetrics 1.0 "Protocol Negotiation"). */
const ACCEPTS: readonly (readonly [accept: string, isOpen: boolean])[] = [
  ['', false],
  ['*/*', false],
  ['text/plain', false],
  ['text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8', false],
  ['application/openmetrics-text', true],
  ['Application/OpenMetrics-Text; Version=1.0.0; charset=utf-8', true],
  ['application/openmetrics-text;version="1.0.0"', true],
  ['application/openmetrics-text; version=2.0.0', false],
  ['application/openmetrics-text;q=0, text/plain', false],
  ['application/openmetrics-text;q=0', false],
  ['application/openmetrics-text;q=0.2,text/plain;q=0.9', false],
  ['application/openmetrics-text;q=0.9,text/plain;q=0.2', true],
  ['application/openmetrics-text;q=nonsense,text/plain;q=0.1', false],
  // Prometheus 2.
  [
    'application/openmetrics-text;version=1.0.0;q=0.8,application/openmetrics-text;version=0.0.1;q=0.75,text/plain;version=0.0.4;q=0.5,*/*;q=0.1',
    true,
  ],
  // Prometheus 3 with protocol buffers first.
  [
    'application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited;q=0.7,application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,text/plain;version=1.0.0;q=0.4,text/plain;version=0.0.4;q=0.3,*/*;q=0.2',
    true,
  ],
];

for (const [accept, isOpen] of ACCEPTS) {
  test(`Accept: ${accept || 'none'}: ${isOpen ? 'OpenMetrics' : 'plain text'}`, () =>
    assert.is(wantsOpenMetrics(accept), isOpen));
}

test('served with the type that was asked for, and the word that it depends on that', async () => {
  const server = await MetricsServer.listen(0, new SnapshotMetrics(() => snapshot, ['port', 'device']));
  try {
    for (const [accept, type, end] of [
      ['application/openmetrics-text', 'application/openmetrics-text; version=1.0.0; charset=utf-8', /\n# EOF\n$/],
      ['*/*', 'text/plain; version=0.0.4; charset=utf-8', /[0-9]\n$/],
    ] as const) {
      const response = await fetch(server.url, { headers: { accept } });
      assert.is(response.headers.get('content-type'), type);
      assert.is(response.headers.get('vary'), 'Accept');
      assert.match(await response.text(), end);
    }
    const head = await fetch(server.url, { method: 'HEAD' });
    assert.equal([head.status, await head.text()], [200, '']);
  } finally {
    await server.close();
  }
});

test.run();
