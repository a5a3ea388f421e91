/** `virtio-pmd backend` with DPDK's `net_virtio_user` and our own driver as front-ends. */

import { readdirSync, rmSync } from 'node:fs';
import { join } from 'node:path';

import { suite } from 'uvu';
import * as assert from 'uvu/assert';

import { PcapReader } from '../../driver/pcap/pcap-reader.js';
import { native } from '../../native/index.js';
import { runCli, startCli } from '../support/cli.js';
import { CliDaemon, type DaemonEvent, withDaemon } from '../support/cli-daemon.js';
import { parseMetrics } from '../support/cli-metrics.js';
import { runStep } from '../support/run-step.js';
import { skipWithout, skipWithoutRoot } from '../support/skip.js';
import { withFolder } from '../support/temp-folder.js';
import { uniqueName } from '../support/test-names.js';
import { Testpmd } from '../support/testpmd.js';

export const timeBoundSeconds = 240;
export const fullTimeBoundSeconds = 900;

const isFull = process.env['VIRTIO_PMD_FULL'] !== undefined;
const PACKETS = isFull ? 1_000_000 : 20_000;
const RESTARTS = isFull ? 20 : 3;

const at = (path: string): string => `--socket-path=${path}`;
const isRunning = (ring: number, connection?: number) => (event: DaemonEvent) =>
  event['state'] === 'started' &&
  event['ring'] === ring &&
  (connection === undefined || event.connection === connection);

/** The rings of a connection in a `stats` event; none in any other. */
function moved(event: DaemonEvent, connection: number): readonly { queue: string; packets: number }[] {
  if (event.event !== 'stats') return [];
  const samples = event['connections'] as { connection: number; rings: { queue: string; packets: number }[] }[];
  return samples.find((sample) => sample.connection === connection)?.rings ?? [];
}

const test = suite('the daemon and our driver');

test('the events of one connection, in order, each with its time, connection and socket', () =>
  withFolder((folder) => {
    const path = join(folder, 'x.sock');
    return withDaemon([at(path), '--queues=2'], async (daemon) => {
      const end = await runCli(['loopback', '--connect', path, '--queues', '2', '--packets', String(PACKETS)]);
      assert.is(end.status, 0, end.stderr);
      const last = await daemon.waitFor((event) => event.event === 'disconnected', 'the end');
      const { events } = daemon;
      const order = events.map(({ event }) => event);
      assert.is(order[0], 'listening');
      assert.is(order[1], 'connected');
      assert.ok(order.indexOf('features') < order.indexOf('memory'));
      assert.ok(order.indexOf('memory') < events.findIndex(isRunning(0)));
      assert.is(order.at(-1), 'disconnected');
      let before = 0;
      for (const { event, t, connection, socket } of events) {
        assert.ok(t >= before, 'times do not go back');
        before = t;
        assert.is(socket, path, event);
        assert.is(connection, event === 'listening' ? undefined : 1, event);
      }
      const rings = events.filter((event) => event['state'] === 'started');
      assert.equal(
        rings.map((event) => event['queue']),
        ['receiveq 0', 'transmitq 0', 'receiveq 1', 'transmitq 1'],
      );
      const features = daemon.all('features')[0]!['features'] as string[];
      assert.ok(features.includes('VERSION_1') && features.includes('MQ'), features.join());
      assert.is((last['fromGuest'] as { packets: number }).packets, PACKETS);
      assert.is((last['toGuest'] as { packets: number }).packets, PACKETS);
      assert.equal(last['drops'], {});
    });
  }));

test('two sockets at once: two guests, neither sees the other', () =>
  withFolder((folder) => {
    const paths = [join(folder, 'x.sock'), join(folder, 'y.sock')];
    return withDaemon(paths.map(at), async (daemon) => {
      await daemon.waitFor((event) => event.event === 'listening' && event.socket === paths[1], 'the second socket');
      const ends = await Promise.all(
        paths.map((path) => runCli(['loopback', '--json', '--connect', path, '--packets', String(PACKETS)])),
      );
      for (const end of ends) {
        assert.is(end.status, 0, end.stderr);
        assert.is((JSON.parse(end.stdout) as { verified: number }).verified, PACKETS);
      }
      await daemon.waitFor(() => daemon.all('disconnected').length === 2, 'both ends');
      const connected = daemon.all('connected');
      assert.equal(connected.map((event) => event.connection).sort(), [1, 2]);
      assert.equal(connected.map((event) => event.socket).sort(), paths);
    });
  }));

test('--fd: a connected socket that was handed over; the daemon ends when the front-end does', async () => {
  const [ours, theirs] = native.socketPair();
  const daemon = await CliDaemon.start(['--fd=3'], { inherited: [theirs] }, 'connected');
  try {
    native.closeFd(theirs);
    assert.is(daemon.all('connected')[0]!.socket, 'fd:3');
    // GET_FEATURES (vhost-user "Message types"): request 1, version 1, no payload.
    native.send(ours, Uint8Array.of(1, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0), []);
    const reply = new Uint8Array(64);
    for (let tries = 0; ; tries++) {
      const received = native.receive(ours, reply);
      if (received !== undefined) {
        assert.is(received.bytes, 20);
        break;
      }
      assert.ok(tries < 2000, 'an answer');
      await new Promise((resolve) => setTimeout(resolve, 10));
    }
    assert.is(reply[0], 1);
    assert.is((new DataView(reply.buffer).getBigUint64(12, true) >> 32n) & 1n, 1n, 'VERSION_1');
    native.closeFd(ours);
    const end = await daemon.cli.done;
    assert.is(end.status, 0, end.stderr);
    assert.is(daemon.events.at(-1)?.event, 'disconnected');
    assert.equal(end.left, []);
  } finally {
    daemon.cli.kill('SIGKILL');
  }
});

test('--metrics: what Prometheus would read, before, in and after traffic; nothing but /metrics is there', () =>
  withFolder((folder) => {
    const path = join(folder, 'x.sock');
    return withDaemon([at(path), '--metrics=0'], async (daemon) => {
      const url = String((await daemon.waitFor((event) => event['metrics'] !== undefined, 'the address'))['metrics']);
      assert.match(url, /^http:\/\/127\.0\.0\.1:\d+\/metrics$/);
      const read = async () => {
        const response = await fetch(url);
        assert.is(response.status, 200);
        return parseMetrics(await response.text());
      };
      const label = `socket="${path}"`;
      assert.is((await read()).get('virtio_pmd_connections')?.samples.get(label), 0);
      const guest = startCli(['loopback', '--connect', path, '--duration', '60']);
      try {
        await daemon.waitFor(isRunning(1), 'its rings');
        const packets = async (): Promise<number> =>
          (await read()).get('virtio_pmd_packets_total')?.samples.get(`${label},connection="1",queue="transmitq 0"`) ??
          0;
        let [before, now] = [await packets(), 0];
        for (const deadline = Date.now() + 20_000; before === 0 && Date.now() < deadline; ) before = await packets();
        for (const deadline = Date.now() + 20_000; now <= before && Date.now() < deadline; ) now = await packets();
        assert.ok(now > before && before > 0, `${before}, then ${now}`);
        assert.is((await read()).get('virtio_pmd_connections')?.samples.get(label), 1);
      } finally {
        guest.kill('SIGINT');
        await guest.done;
      }
      await daemon.waitFor((event) => event.event === 'disconnected', 'its end');
      const after = await read();
      assert.is(after.get('virtio_pmd_connections')?.samples.get(label), 0);
      assert.is(after.get('virtio_pmd_connections_made_total')?.samples.get(label), 1);
      assert.is((await fetch(new URL('/', url))).status, 404);
      assert.is((await fetch(url, { method: 'POST' })).status, 405);
    });
  }));

test('--mode pcap: what guests send is stored, for each connection in a file of its own', () =>
  withFolder((folder) => {
    const path = join(folder, 'x.sock');
    const stored = join(folder, 'out.pcap');
    return withDaemon([at(path), `--pcap-out=${stored}`, '--stats=0.1'], async (daemon) => {
      for (const connection of [1, 2]) {
        const guest = startCli(['loopback', '--connect', path, '--packets', '100']);
        // Nothing comes back from this port.
        await daemon.waitFor((event) => moved(event, connection).some(({ packets }) => packets > 0), 'packets');
        guest.kill('SIGINT');
        await guest.done;
        const end = await daemon.waitFor(
          (event) => event.event === 'disconnected' && event.connection === connection,
          'its end',
        );
        using reader = PcapReader.open(connection === 1 ? stored : join(folder, 'out.2.pcap'));
        const packets = [...reader].length;
        assert.ok(packets > 0);
        assert.is(packets, (end['fromGuest'] as { packets: number }).packets);
      }
    });
  }));

test('every mode takes a front-end; a source sends at its rate, and says how much', () =>
  withFolder(async (folder) => {
    const path = join(folder, 'x.sock');
    for (const options of [['icmpecho'], ['switch'], ['sink'], ['source', '--rate=2000', '--size=imix']]) {
      const [mode, ...more] = options;
      await withDaemon([at(path), `--mode=${mode}`, '--stats=0.1', ...more], async (daemon) => {
        const guest = startCli(['loopback', '--connect', path, '--duration', '60']);
        try {
          const queue = mode === 'source' ? 'receiveq 0' : 'transmitq 0';
          const hasMoved = (event: DaemonEvent): boolean =>
            moved(event, 1).some((ring) => ring.queue === queue && ring.packets > 0);
          await daemon.waitFor(hasMoved, `packets with ${mode}`);
        } finally {
          guest.kill('SIGKILL');
          await guest.done;
        }
        const end = await daemon.waitFor((event) => event.event === 'disconnected', 'its end');
        const { sent } = end['port'] as Record<string, number>;
        if (mode === 'source') assert.ok(sent! >= (end['toGuest'] as { packets: number }).packets, JSON.stringify(end));
      });
    }
  }));

test('SIGUSR1 and --describe: features by name with what they mean, memory, rings, and who acts next', () =>
  withFolder((folder) => {
    const path = join(folder, 'x.sock');
    return withDaemon([at(path), '--describe'], async (daemon) => {
      daemon.cli.kill('SIGUSR1');
      await daemon.waitFor((event) => event.event === 'describe' && event.connection === undefined, 'nobody');
      const guest = startCli(['loopback', '--connect', path, '--duration', '60']);
      try {
        const rings = ({ rings = [] }: Record<string, unknown>) => rings as Record<string, unknown>[];
        // By itself, once the rings are left alone.
        await daemon.waitFor((event) => event.event === 'describe' && rings(event).length === 2, 'a description');
        const from = daemon.events.length;
        daemon.cli.kill('SIGUSR1');
        const told = await daemon.waitFor((event) => event.event === 'describe', 'another one', from);
        assert.is(told.connection, 1);
        const features = told['features'] as { name: string; isAccepted: boolean; note: string; why: string }[];
        const mergeable = features.find(({ name }) => name === 'MRG_RXBUF');
        assert.ok(mergeable?.isAccepted);
        assert.is(mergeable?.note, 'a packet may fill several receive buffers');
        assert.ok(features.every(({ note, why }) => note !== '' && why !== ''));
        const memory = told['memory'] as { guestAddress: string; bytes: number }[];
        assert.is(
          memory.reduce((sum, { bytes }) => sum + bytes, 0),
          daemon.all('memory').at(-1)?.['bytes'],
        );
        assert.ok(memory.every(({ guestAddress }) => /^0x[0-9a-f]+$/.test(guestAddress)));
        assert.equal(
          rings(told).map(({ queue, state, size, isEnabled }) => ({ queue, state, size, isEnabled })),
          ['receiveq 0', 'transmitq 0'].map((queue) => ({ queue, state: 'started', size: 256, isEnabled: true })),
        );
        for (const { indices, next, why } of rings(told)) {
          const { available, used, outstanding } = indices as Record<string, number>;
          assert.is(outstanding, (available! - used!) & 0xffff);
          assert.ok(['driver', 'device', 'nobody'].includes(next as string), String(next));
          assert.type(why, 'string');
        }
      } finally {
        guest.kill('SIGINT');
        await guest.done;
      }
    });
  }));

const dpdk = skipWithout(suite('the daemon and DPDK'), 'dpdk');

dpdk(`--client: net_virtio_user as server, killed and started again ${RESTARTS} times, is found again each time`, () =>
  withFolder(async (folder) => {
    const path = join(folder, 'x.sock');
    const daemon = await CliDaemon.start([at(path), '--client', '--mode=sink', '--stats=0.1'], {}, 'waiting');
    try {
      for (let connection = 1; connection <= RESTARTS; connection++) {
        const testpmd = await Testpmd.start({
          vdevs: [`net_virtio_user0,path=${path},queues=1,server=1`],
          options: ['--forward-mode=txonly'],
        });
        try {
          await daemon.waitFor(isRunning(1, connection), `connection ${connection}`);
          await testpmd.command('start', /txonly/);
          await daemon.waitFor((event) => moved(event, connection).some(({ packets }) => packets > 0), 'packets');
        } finally {
          await testpmd.kill();
          // DPDK does not remove a socket file that was left behind.
          rmSync(path, { force: true });
        }
        const end = await daemon.waitFor(
          (event) => event.event === 'disconnected' && event.connection === connection,
          'its end',
        );
        assert.ok((end['fromGuest'] as { packets: number }).packets > 0, JSON.stringify(end));
      }
      assert.equal(daemon.all('error'), []);
      await daemon.stop();
    } finally {
      daemon.cli.kill('SIGKILL');
    }
  }),
);

dpdk('net_virtio_user through the echo port: all that testpmd sent is back; statistics say the same', () =>
  withFolder((folder) => {
    const path = join(folder, 'x.sock');
    return withDaemon([at(path), '--queues=2', '--stats=0.2'], async (daemon) => {
      const testpmd = await Testpmd.start({
        vdevs: [`net_virtio_user0,path=${path},queues=2,queue_size=512`],
        options: ['--rxq=2', '--txq=2', '--forward-mode=io', '--port-topology=loop'],
      });
      try {
        await daemon.waitFor(isRunning(3), 'its rings');
        await testpmd.command('start tx_first', /io packet forwarding/);
        const sample = await daemon.waitFor((event) => {
          const rings = moved(event, 1);
          return rings.length === 4 && rings.every(({ packets }) => packets > 1000);
        }, 'traffic on all rings');
        assert.type(sample['seconds'], 'number');
        const from = testpmd.output.length;
        await testpmd.command('stop', /Done\./);
        assert.match(testpmd.output.slice(from), /RX-packets: [1-9]/);
      } finally {
        await testpmd.quit();
      }
      const end = await daemon.waitFor((event) => event.event === 'disconnected', 'its end');
      const { fromGuest, toGuest } = end as unknown as Record<'fromGuest' | 'toGuest', { packets: number }>;
      const dropped = Object.values(end['drops'] as Record<string, number>).reduce((sum, value) => sum + value, 0);
      assert.ok(toGuest.packets > 1000 && fromGuest.packets - toGuest.packets - dropped <= 0, JSON.stringify(end));
    });
  }),
);

const tap = skipWithoutRoot(skipWithout(suite('the daemon and the kernel'), 'iproute2', 'ping'));

tap('--tap: the interface is there while the daemon is, guests and kernel are on one switch', () =>
  withFolder(async (folder) => {
    const paths = [join(folder, 'x.sock'), join(folder, 'y.sock')];
    const name = uniqueName('tp');
    const isThere = (): boolean => readdirSync('/sys/class/net').includes(name);
    await withDaemon([...paths.map(at), `--tap=${name}`, '--stats=0.1'], async (daemon) => {
      assert.ok(isThere());
      await runStep('raising the interface', 'ip', ['link', 'set', name, 'up']);
      const guest = startCli(['loopback', '--connect', paths[0]!, '--duration', '60']);
      try {
        // What the kernel says on its own account (IPv6) goes to every guest, and what the guest sends is switched.
        await daemon.waitFor(
          (event) => moved(event, 1).every(({ packets }) => packets > 0) && moved(event, 1).length === 2,
          'packets both ways',
        );
        await runStep('taking the interface away', 'ip', ['link', 'delete', name]);
        const error = await daemon.waitFor((event) => event.event === 'error', 'the report');
        assert.is(error.socket, `tap:${name}`);
        assert.match(String(error['message']), /is gone/);
      } finally {
        guest.kill('SIGKILL');
        await guest.done;
      }
    });
    await withDaemon([...paths.map(at), `--tap=${name}`], async () => assert.ok(isThere()));
    assert.not(isThere());
  }),
);

test.run();
dpdk.run();
tap.run();
