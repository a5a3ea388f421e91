/** `virtio-pmd backend --mode switch` on several processors: guests and the kernel on one switch, and what it counts. */

import { join } from 'node:path';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';

import { startCli } from '../support/cli.js';
import { type CliDaemon, type DaemonEvent, withDaemon } from '../support/cli-daemon.js';
import { type MetricFamily, parseMetrics } from '../support/cli-metrics.js';
import { runStep } from '../support/run-step.js';
import { skipWithout, skipWithoutRoot } from '../support/skip.js';
import { withFolder } from '../support/temp-folder.js';
import { uniqueName } from '../support/test-names.js';
import { Testpmd } from '../support/testpmd.js';
import { until } from '../support/until.js';

export const timeBoundSeconds = 240;

const BURST = 32;
const PATIENCE_MS = 60_000;
const DROP_REASONS = [
  'filtered',
  'reserved',
  'vlan',
  'notTaken',
  'noBuffer',
  'refused',
  'offload',
  'betweenThreads',
] as const;

const at = (path: string): string => `--socket-path=${path}`;
const macOf = (guest: number): string => `02:00:00:00:01:0${guest}`;

interface Counts {
  readonly stations: number;
  readonly received: number;
  readonly sent: number;
  readonly flooded: number;
  readonly direct: number;
  readonly moves: number;
  readonly drops: Readonly<Record<string, number>>;
}

interface SwitchEvent {
  readonly members: readonly { readonly member: string; readonly connection?: number; readonly counts: Counts }[];
  readonly total: Counts;
}

/** The switch of a `stats` event; undefined in any other. */
const switchOf = (event: DaemonEvent): SwitchEvent | undefined => event['switch'] as SwitchEvent | undefined;
const countsOf = (event: DaemonEvent, connection: number): Counts | undefined =>
  switchOf(event)?.members.find((member) => member.connection === connection)?.counts;
const sum = (values: Readonly<Record<string, number>>): number => Object.values(values).reduce((a, b) => a + b, 0);

/** The next statistics that are as they should be. */
const statistics = (daemon: CliDaemon, is: (event: DaemonEvent) => boolean, what: string): Promise<DaemonEvent> =>
  daemon.waitFor((event) => event.event === 'stats' && is(event), what, daemon.events.length);

/** Packets of one burst that testpmd printed, by addresses. */
function printed(testpmd: Testpmd, from: number): Record<string, number> {
  const found: Record<string, number> = {};
  for (const [, source, destination] of testpmd.output.slice(from).matchAll(/src=([\w:]+) - dst=([\w:]+)/g)) {
    const key = `${source} to ${destination}`.toLowerCase();
    found[key] = (found[key] ?? 0) + 1;
  }
  return found;
}

/** Three front-ends, one behind the other, so that the connections have the numbers of the guests; each sends to the next. */
async function withThree(folder: string, body: (guests: readonly Testpmd[], daemon: CliDaemon) => Promise<void>) {
  const paths = [0, 1, 2].map((guest) => join(folder, `${guest}.sock`));
  const guests: Testpmd[] = [];
  await withDaemon([...paths.map(at), '--mode=switch', '--lcores=0,1', '--stats=0.2'], async (daemon) => {
    try {
      for (const [guest, path] of paths.entries()) {
        guests.push(
          await Testpmd.start({
            vdevs: [`net_virtio_user0,path=${path},mac=${macOf(guest)}`],
            options: ['--forward-mode=rxonly', `--eth-peer=0,${macOf((guest + 1) % 3)}`, '--port-topology=loop'],
            megabytes: 192,
          }),
        );
      }
      for (const guest of guests) await guest.command('set verbose 1', /Change verbose level/);
      await body(guests, daemon);
    } finally {
      for (const guest of guests) await guest.quit();
    }
  });
}

const dpdk = skipWithout(suite('a switch over two processors and DPDK'), 'dpdk');

dpdk('three front-ends on two processors: all reach each other, a flood is once for each, nobody gets their own', () =>
  withFolder((folder) =>
    withThree(folder, async (guests, daemon) => {
      const lcores = daemon.all('connected').map((event) => event['lcores']);
      assert.equal(lcores, [[0], [1], [0]], 'the guests are spread over both processors');
      const marks = guests.map((guest) => guest.output.length);
      const seen = (guest: number) => printed(guests[guest]!, marks[guest]!);
      for (const guest of guests.slice(1)) await guest.command('start', /rxonly packet forwarding[\s\S]*testpmd> /);
      // One burst, then it receives as the others do. Nobody has said anything yet: all see it.
      await guests[0]!.command('start tx_first', /rxonly packet forwarding/);
      const first = { [`${macOf(0)} to ${macOf(1)}`]: BURST };
      for (const guest of [1, 2]) {
        await until(() => sum(seen(guest)) >= BURST, `the flood at guest ${guest}`, PATIENCE_MS);
      }
      // The second sends to the third, which is unknown; then the third to the first, which is not.
      await guests[1]!.command('stop', /Forward statistics/);
      await guests[1]!.command('start tx_first', /rxonly packet forwarding/);
      const second = { [`${macOf(1)} to ${macOf(2)}`]: BURST };
      await until(() => sum(seen(0)) >= BURST && sum(seen(2)) >= 2 * BURST, 'the second flood', PATIENCE_MS);
      await guests[2]!.command('stop', /Forward statistics/);
      await guests[2]!.command('start tx_first', /rxonly packet forwarding/);
      const third = { [`${macOf(2)} to ${macOf(0)}`]: BURST };
      await until(() => sum(seen(0)) >= 2 * BURST, 'what is for the first', PATIENCE_MS);
      // From one processor to the other, with everybody known.
      await guests[0]!.command('stop', /Forward statistics/);
      await guests[0]!.command('start tx_first', /rxonly packet forwarding/);
      await until(() => sum(seen(1)) >= 2 * BURST, 'what is for the second', PATIENCE_MS);
      const settled = await statistics(
        daemon,
        (event) => switchOf(event)?.total.received === 4 * BURST && switchOf(event)?.total.stations === 3,
        'statistics of all four bursts',
      );
      assert.equal(seen(0), { ...second, ...third });
      assert.equal(seen(1), { [`${macOf(0)} to ${macOf(1)}`]: 2 * BURST });
      assert.equal(seen(2), { ...first, ...second });
      const counts = [1, 2, 3].map((connection) => countsOf(settled, connection)!);
      assert.equal(
        counts.map(({ received, sent, flooded, direct }) => [received, sent, flooded, direct]),
        [
          // What the third has sent it, on the same processor.
          [2 * BURST, 2 * BURST, BURST, BURST],
          [BURST, 2 * BURST, BURST, 0],
          [BURST, 2 * BURST, 0, 0],
        ],
      );
      assert.equal(
        counts.map(({ stations, moves }) => [stations, moves]),
        counts.map(() => [1, 0]),
      );
      for (const { drops } of counts) {
        assert.equal(Object.keys(drops).sort(), [...DROP_REASONS].sort());
        assert.is(sum(drops), 0, JSON.stringify(drops));
      }
    }),
  ),
);

const tap = skipWithoutRoot(skipWithout(suite('a switch over two processors and the kernel'), 'iproute2'));

/** A sample by labels, in whatever order. */
function sample(families: ReadonlyMap<string, MetricFamily>, name: string, ...labels: readonly string[]) {
  for (const [key, value] of families.get(name)?.samples ?? []) {
    if (labels.every((label) => key.includes(label))) return value;
  }
  return undefined;
}

tap('the uplink and the guests in --stats and --metrics: stations, packets, every reason; sums never go back', () =>
  withFolder((folder) => {
    const path = join(folder, 'x.sock');
    const name = uniqueName('tp');
    const args = [at(path), `--tap=${name}`, '--lcores=0,1', '--stats=0.2', '--metrics=0'];
    return withDaemon(args, async (daemon) => {
      const url = String((await daemon.waitFor((event) => event['metrics'] !== undefined, 'the address'))['metrics']);
      const read = async () => parseMetrics(await (await fetch(url)).text());
      const uplink = (event: DaemonEvent): Counts | undefined =>
        switchOf(event)?.members.find(({ member }) => member === `tap:${name}`)?.counts;
      const guest = startCli(['loopback', '--connect', path, '--duration', '60']);
      try {
        const connected = await daemon.waitFor((event) => event.event === 'connected', 'the guest');
        assert.equal(connected['lcores'], [1], 'the uplink is on the first processor');
        await daemon.waitFor((event) => event['state'] === 'started' && event['ring'] === 1, 'its rings');
        await runStep('raising the interface', 'ip', ['link', 'set', name, 'up']);
        // The kernel speaks on its own account (IPv6), the guest sends to an address that nobody has.
        const both = await statistics(
          daemon,
          (event) =>
            (uplink(event)?.received ?? 0) > 0 && (uplink(event)?.sent ?? 0) > 0 && uplink(event)?.stations === 1,
          'packets both ways and the station of the kernel',
        );
        assert.equal(Object.keys(uplink(both)!.drops).sort(), [...DROP_REASONS].sort());
        const families = await read();
        const tapLabel = `socket="tap:${name}"`;
        const guestLabel = `socket="${path}",connection="1"`;
        assert.is(sample(families, 'virtio_pmd_switch_members'), 2);
        assert.is(sample(families, 'virtio_pmd_switch_stations', tapLabel), 1);
        assert.ok(sample(families, 'virtio_pmd_switch_received_total', tapLabel)! > 0);
        assert.ok(sample(families, 'virtio_pmd_switch_sent_total', tapLabel)! > 0);
        assert.ok(sample(families, 'virtio_pmd_switch_received_total', guestLabel)! > 0);
        for (const label of [tapLabel, guestLabel]) {
          assert.is(sample(families, 'virtio_pmd_switch_direct_total', label), 0, label);
          for (const reason of ['filtered', 'not_taken', 'refused', 'between_threads']) {
            const value = sample(families, 'virtio_pmd_switch_drops_total', label, `reason="${reason}"`);
            assert.type(value, 'number', `${label} ${reason}`);
          }
        }
      } finally {
        guest.kill('SIGINT');
        await guest.done;
      }
      await daemon.waitFor((event) => event.event === 'disconnected', 'its end');
      const gone = await statistics(daemon, (event) => countsOf(event, 1) === undefined, 'statistics without it');
      const left = switchOf(gone)!.members.find(({ member }) => member === 'gone')!.counts;
      const { port } = daemon.all('disconnected')[0] as unknown as { port: Record<string, number> };
      assert.is(left.received, port['received']);
      assert.is(left.stations, 0);
      const after = await read();
      assert.is(sample(after, 'virtio_pmd_switch_members'), 1);
      assert.is(sample(after, 'virtio_pmd_switch_received_total', 'connection="gone"'), left.received);
    });
  }),
);

dpdk.run();
tap.run();
