/** The parts of `virtio-pmd backend`: how its options are read, what its events, statistics and metrics say. */

import { mkdtempSync, rmSync, statSync } from 'node:fs';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { suite } from 'uvu';
import * as assert from 'uvu/assert';

import type { RingStatistics } from '../../driver/backend/counters.js';
import type { NetDevice } from '../../driver/backend/net-device.js';
import type { BackendPortSpec } from '../../driver/backend/ports/backend-port.js';
import { switchPort, switchUplinkPort } from '../../driver/backend/ports/built-in.js';
import { type CountedPort, countersOf } from '../../driver/backend/ports/port-counters.js';
import { type SwitchCounterName, switchCounters } from '../../driver/backend/switch/switch-counters.js';
import { DaemonSocket, type SocketEvent } from '../../driver/cli/backend/connections.js';
import { eventLine } from '../../driver/cli/backend/event-line.js';
import { eventRecord } from '../../driver/cli/backend/event-record.js';
import { featureChoice } from '../../driver/cli/backend/feature-choice.js';
import { Metrics } from '../../driver/cli/backend/metrics.js';
import { offeredFeatures } from '../../driver/cli/backend/offered.js';
import { outputOf } from '../../driver/cli/backend/port-choice.js';
import { ringName } from '../../driver/cli/backend/ring-name.js';
import { groupNumber, socketMode } from '../../driver/cli/backend/socket-access.js';
import { Sampler } from '../../driver/cli/backend/statistics.js';
import { statisticsTable, switchTable } from '../../driver/cli/backend/statistics-table.js';
import { SwitchView } from '../../driver/cli/backend/switch-view.js';
import { withSocketMode } from '../../driver/cli/socket-mode.js';
import { ErrorCode, VirtioError } from '../../driver/errors.js';
import type { ServerEvent } from '../../driver/index.js';
import { Feature, FeatureSet } from '../../driver/spec/features.js';
import { parseMetrics } from '../support/cli-metrics.js';

const test = suite('virtio-pmd backend');

/** A device that has counted what it is told to. */
class CountingDevice {
  readonly maxQueuePairs: number;
  readonly counted = new Map<number, Partial<RingStatistics>>();

  constructor(queuePairs: number) {
    this.maxQueuePairs = queuePairs;
  }

  statistics(ring: number): RingStatistics {
    const none = { packets: 0, bytes: 0, polls: 0, emptyPolls: 0, callsSent: 0, callsSaved: 0, noBuffer: 0 };
    return { ...none, drops: { runt: 0, tooLong: 0 }, ...this.counted.get(ring) } as RingStatistics;
  }
}

interface Stand {
  readonly socket: DaemonSocket;
  readonly device: CountingDevice;
  /** Has the server say it; returns it with its connection. */
  tell(event: ServerEvent): SocketEvent;
}

/** A socket with one connection, number 3 over all sockets, which is the server's first. */
function connected(queuePairs = 1, port: BackendPortSpec = { module: '', options: {} }): Stand {
  let number = 2;
  const socket = new DaemonSocket('/run/"vm".sock', () => ++number);
  const device = new CountingDevice(queuePairs);
  socket.make(() => ({
    device: device as unknown as NetDevice,
    port,
    place: { threads: [], lcores: [1], release: () => undefined },
  }));
  const tell = (event: ServerEvent): SocketEvent => socket.take(event);
  tell({ type: 'connected', connection: 1 });
  return { socket, device, tell };
}

test('--features: names with and without prefixes, all or all but', () => {
  assert.equal(featureChoice('mrg_rxbuf,VIRTIO_RING_F_EVENT_IDX, VIRTIO_NET_F_MQ'), {
    how: 'only',
    names: ['MRG_RXBUF', 'EVENT_IDX', 'MQ'],
  });
  assert.equal(featureChoice('-MRG_RXBUF,-VIRTIO_F_VERSION_1'), { how: 'without', names: ['MRG_RXBUF', 'VERSION_1'] });
  const usual = FeatureSet.of(Feature.VERSION_1, Feature.MRG_RXBUF, Feature.CTRL_VQ, Feature.MQ, Feature.EVENT_IDX);
  const offered = (text: string): string => offeredFeatures(featureChoice(text), usual).toString();
  assert.is(offered('MRG_RXBUF'), 'MRG_RXBUF | VERSION_1', 'VERSION_1 is always there');
  assert.is(offered('PROTOCOL_FEATURES'), 'VERSION_1', 'the socket adds it');
  assert.is(offered('-MRG_RXBUF,-EVENT_IDX'), 'CTRL_VQ | MQ | VERSION_1');
  assert.is(offeredFeatures(undefined, usual), usual);
  assert.throws(() => offered('-CTRL_VQ'), /MQ needs CTRL_VQ/);
  assert.throws(() => offered('-PROTOCOL_FEATURES'), /PROTOCOL_FEATURES cannot be left out/);
});

test('--socket-mode: octal; the file has it from the start, and the mask is what it was', async () => {
  assert.is(socketMode('660'), 0o660);
  assert.is(socketMode('0600'), 0o600);
  const before = process.umask();
  const folder = mkdtempSync(join(tmpdir(), 't-'));
  try {
    for (const mode of [0o600, 0o666, 0o777, 0o020]) {
      const path = join(folder, `${mode}.sock`);
      const server = createServer();
      const listening = withSocketMode(mode, () => new Promise<void>((resolve) => server.listen(path, resolve)));
      assert.is(statSync(path).mode & 0o777, mode);
      await listening;
      server.close();
    }
    assert.throws(() =>
      withSocketMode(0o600, () => {
        throw new Error('no');
      }),
    );
  } finally {
    rmSync(folder, { recursive: true });
    assert.is(process.umask(), before);
  }
});

test('--socket-group: by number or by name, and nothing else', () => {
  const groups = (): string => 'root:x:0:\nkvm:x:104:me,you\nodd:x::\n';
  assert.is(groupNumber('104', groups), 104);
  assert.is(groupNumber('kvm', groups), 104);
  for (const wrong of ['vm', 'odd', 'kvm:x', '4294967295', '.vm']) {
    assert.throws(() => groupNumber(wrong, groups), new RegExp(`there is no group ${wrong}`), wrong);
  }
});

test("each connection's capture goes to a file of its own", () => {
  assert.is(outputOf('/tmp/vm.pcap', 1), '/tmp/vm.pcap');
  assert.is(outputOf('/tmp/vm.pcap', 2), '/tmp/vm.2.pcap');
  assert.is(outputOf('/tmp/v.m/capture', 12), '/tmp/v.m/capture.12');
});

test('rings are named as the specification numbers them (virtio 1.2 §5.1.2)', () => {
  assert.equal(
    [0, 1, 2, 3, 4].map((ring) => ringName(ring, 2)),
    ['receiveq 0', 'transmitq 0', 'receiveq 1', 'transmitq 1', 'controlq'],
  );
});

test('events: what belongs to each, for scripts and for people', () => {
  const { device, tell } = connected();
  device.counted.set(0, { packets: 5, bytes: 320 });
  device.counted.set(1, { packets: 7, bytes: 448, drops: { runt: 2, tooLong: 0 } as RingStatistics['drops'] });
  const error = new VirtioError(ErrorCode.PROTOCOL_VIOLATION, 'it cannot', { advice: 'do not' });
  const told = (event: ServerEvent): unknown[] => {
    const { t, ...record } = eventRecord(tell(event));
    assert.ok(Math.abs(t - Date.now() / 1000) < 60, 'seconds since 1970');
    return [record, eventLine(tell(event))];
  };
  const whose = { connection: 3, socket: '/run/"vm".sock' };
  assert.equal(told({ type: 'features', connection: 1, features: FeatureSet.of(Feature.MQ, Feature.VERSION_1) }), [
    { event: 'features', ...whose, features: ['MQ', 'VERSION_1'] },
    'connection 3: features MQ | VERSION_1',
  ]);
  assert.equal(told({ type: 'memory', connection: 1, regions: 1, bytes: 1n << 30n }), [
    { event: 'memory', ...whose, regions: 1, bytes: 2 ** 30 },
    'connection 3: memory, 1024.0 MiB in 1 region',
  ]);
  assert.equal(told({ type: 'vring', connection: 1, ring: 1, state: 'started', size: 256 }), [
    { event: 'vring', ...whose, ring: 1, queue: 'transmitq 0', state: 'started', size: 256 },
    'connection 3: transmitq 0 started, 256 entries',
  ]);
  const { connection, socket } = tell({ type: 'memory', connection: 1, regions: 1, bytes: 1n });
  const arrival: SocketEvent = { connection, socket, event: { type: 'connected', connection: 1 } };
  const { t: _time, ...arrived } = eventRecord(arrival);
  assert.equal(arrived, { event: 'connected', ...whose, lcores: [1] });
  assert.is(eventLine(arrival), 'connection 3: connected on /run/"vm".sock, polled on 1 processor: 1');
  const nack = {
    type: 'error',
    connection: 1,
    outcome: 'NACK',
    request: 'SET_FEATURES',
    error,
    suppressed: 2,
  } as const;
  const fields = { code: 'PROTOCOL_VIOLATION', message: 'it cannot', advice: 'do not', suppressed: 2 };
  assert.equal(told(nack), [
    { event: 'error', ...whose, outcome: 'NACK', request: 'SET_FEATURES', ...fields },
    'connection 3: NACK, SET_FEATURES: PROTOCOL_VIOLATION: it cannot (do not); 2 more like it before',
  ]);
  const end = tell({ type: 'disconnected', connection: 1, reason: 'it left' });
  const { t: _, ...last } = eventRecord(end);
  assert.equal(last, {
    event: 'disconnected',
    ...whose,
    reason: 'it left',
    fromGuest: { packets: 7, bytes: 448 },
    toGuest: { packets: 5, bytes: 320 },
    drops: { runt: 2 },
    port: {},
  });
  assert.is(eventLine(end), 'connection 3: disconnected, it left; 7 packets from the guest, 5 to it, 2 dropped');
});

test('statistics: rates are since the last look, rings that never ran are left out', async () => {
  const { socket, device, tell } = connected(2);
  const sampler = new Sampler();
  assert.equal(sampler.sample(socket.connections).connections, [
    { connection: 3, socket: '/run/"vm".sock', rings: [], port: {} },
  ]);
  tell({ type: 'vring', connection: 1, ring: 1, state: 'started', size: 256 });
  device.counted.set(1, { packets: 1000, bytes: 64_000 });
  const { seconds, connections } = sampler.sample(socket.connections);
  const [ring, ...more] = connections[0]!.rings;
  assert.is(more.length, 0);
  assert.is(ring!.queue, 'transmitq 0');
  assert.is(ring!.pps, Math.round(1000 / seconds));
  assert.is(ring!.bytesPerSecond, Math.round(64_000 / seconds));
  assert.is(sampler.sample(socket.connections).connections[0]!.rings[0]!.pps, 0, 'nothing came since');
  tell({ type: 'vring', connection: 1, ring: 1, state: 'stopped', size: 256 });
  const again = sampler.sample(socket.connections).connections;
  assert.is(again[0]!.rings.length, 1, 'a ring that did something stays');
  const table = await statisticsTable(again);
  assert.match(table, /transmitq 0 +│ +1,000 │ +0 pps │ +0\.00 Gbit\/s │ +0 │ nothing/);
  assert.is(await statisticsTable([]), 'no front-end is connected\n');
});

test('metrics: every family has help and type, labels are quoted, counters never restart', async () => {
  const { socket, device, tell } = connected();
  const metrics = new Metrics({
    sockets: [socket.name, '/run/b.sock'],
    get connections() {
      return socket.connections;
    },
  });
  tell({ type: 'vring', connection: 1, ring: 0, state: 'started', size: 256 });
  device.counted.set(0, {
    packets: 12,
    bytes: 768,
    callsSent: 3,
    drops: { runt: 0, tooLong: 4 } as RingStatistics['drops'],
  });
  metrics.take(tell({ type: 'connected', connection: 1 }));
  const error = new VirtioError(ErrorCode.RING_BROKEN, 'x');
  metrics.take(tell({ type: 'error', connection: 1, outcome: 'BROKEN', ring: 0, error, suppressed: 4 }));
  metrics.take(tell({ type: 'error', connection: 1, outcome: 'BROKEN', ring: 0, error, suppressed: 0 }));
  const { type, text } = await metrics.print();
  assert.is(type, 'text/plain; version=0.0.4; charset=utf-8');
  const families = parseMetrics(text);
  const value = (family: string, labels: string): number | undefined => families.get(family)?.samples.get(labels);
  const ring = 'socket="/run/\\"vm\\".sock",connection="3",queue="receiveq 0"';
  assert.is(value('virtio_pmd_packets_total', ring), 12);
  assert.is(value('virtio_pmd_bytes_total', ring), 768);
  assert.is(value('virtio_pmd_calls_sent_total', ring), 3);
  assert.is(value('virtio_pmd_drops_total', `${ring},reason="too_long"`), 4);
  assert.is(value('virtio_pmd_drops_total', `${ring},reason="runt"`), 0);
  assert.is(value('virtio_pmd_connections', 'socket="/run/\\"vm\\".sock"'), 1);
  assert.is(value('virtio_pmd_connections', 'socket="/run/b.sock"'), 0);
  assert.is(value('virtio_pmd_connections_made_total', 'socket="/run/\\"vm\\".sock"'), 1);
  assert.is(value('virtio_pmd_connections_made_total', 'socket="/run/b.sock"'), 0);
  assert.is(
    value('virtio_pmd_errors_total', 'socket="/run/\\"vm\\".sock",outcome="BROKEN",code="RING_BROKEN"'),
    6,
    'those that were not told count too',
  );
  assert.ok(value('process_resident_memory_bytes', '')! > 2 ** 20);
  for (const [name, { type, help }] of families) {
    assert.ok(help.length > 0, name);
    assert.is(type, name.endsWith('_total') ? 'counter' : 'gauge', name);
  }
  const again = parseMetrics((await metrics.print()).text);
  assert.is(again.get('virtio_pmd_packets_total')?.samples.get(ring), 12, 'reading twice counts once');
});

test('the switch: what each member counted, those that went included; its metrics and its table', async () => {
  const guest = switchPort();
  const { socket, tell } = connected(1, guest);
  const count = (port: CountedPort<string>, values: Readonly<Record<string, number>>): void => {
    const { counters } = port.options as { counters: SharedArrayBuffer };
    for (const [name, value] of Object.entries(values)) {
      countersOf(counters, 0)[switchCounters[name as SwitchCounterName]] = value;
    }
  };
  const view = new SwitchView(() => socket.connections);
  count(guest, { received: 3, stations: 2, dropNotTaken: 4 });
  const uplink = switchUplinkPort({ tap: { name: 'tap0' } });
  count(uplink, { received: 10, sent: 5, stations: 1, dropRefused: 1 });
  view.addUplink('tap0', uplink);
  const { members, total } = view.sample();
  assert.equal(
    members.map(({ member, socket, connection, counts }) => [member, socket, connection, counts.received]),
    [
      ['3: /run/"vm".sock', '/run/"vm".sock', 3, 3],
      ['tap:tap0', 'tap:tap0', undefined, 10],
    ],
  );
  assert.equal([total.received, total.sent, total.stations], [13, 5, 3]);
  const reasons = Object.keys(switchCounters).filter((name) => name.startsWith('drop'));
  assert.is(Object.keys(total.drops).length, reasons.length, 'every reason is there');
  assert.equal([total.drops['notTaken'], total.drops['refused'], total.drops['vlan']], [4, 1, 0]);
  const table = await switchTable(view.sample());
  assert.match(table, /tap:tap0 +│ +1 │ +10 │ +5 │ +0 │ 1 refused by the kernel/);
  assert.match(table, /all +│ +3 │ +13 │ +5 │ +0 │ 4 not taken in time/);
  const metrics = new Metrics({
    sockets: [socket.name],
    switch: view,
    get connections() {
      return socket.connections;
    },
  });
  const families = async () => {
    const parsed = parseMetrics((await metrics.print()).text);
    return (name: string, labels: string) => parsed.get(`virtio_pmd_${name}`)?.samples.get(labels);
  };
  const label = 'socket="/run/\\"vm\\".sock",connection="3"';
  let value = await families();
  assert.is(value('switch_members', ''), 2);
  assert.is(value('switch_stations', label), 2);
  assert.is(value('switch_received_total', 'socket="tap:tap0",connection=""'), 10);
  assert.is(value('switch_drops_total', `${label},reason="not_taken"`), 4);
  assert.is(value('port_total', `${label},counter="received"`), 3);
  assert.is(value('port_total', `${label},counter="stations"`), undefined, 'no counter: it goes back, too');
  view.take(tell({ type: 'disconnected', connection: 1, reason: 'it left' }));
  value = await families();
  assert.is(value('switch_members', ''), 1);
  assert.is(value('switch_stations', label), undefined);
  assert.is(value('switch_received_total', 'socket="",connection="gone"'), 3);
  assert.equal([view.sample().total.received, view.sample().total.stations], [13, 1], 'only stations go back');
});

test('metrics as OpenMetrics where that is asked for', async () => {
  const { socket } = connected();
  const metrics = new Metrics({ sockets: [socket.name], connections: socket.connections });
  const { type, text } = await metrics.print('application/openmetrics-text;version=1.0.0,text/plain;q=0.5');
  assert.match(type, /^application\/openmetrics-text; version=1\.0\.0/);
  assert.match(text, /\n# EOF\n$/);
  assert.match(text, /# TYPE virtio_pmd_connections_made counter\nvirtio_pmd_connections_made_total\{/);
});

test.run();
