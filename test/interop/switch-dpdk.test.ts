/** The switch between DPDK front-ends (`net_virtio_user`), each on a vhost-user socket of its own. */

import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as pause } from 'node:timers/promises';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { DeviceThread } from '../../driver/backend/device-thread.js';
import { NetDevice } from '../../driver/backend/net-device.js';
import { switchPort } from '../../driver/backend/ports/built-in.js';
import { VhostUserServer } from '../../driver/backend/vhost-user-server.js';
import { skipWithout } from '../support/skip.js';
import { Testpmd } from '../support/testpmd.js';
import { until } from '../support/until.js';

export const timeBoundSeconds = 180;

const test = skipWithout(suite('switch between DPDK front-ends'), 'dpdk');

const macOf = (guest: number): string => `02:00:00:00:01:0${guest}`;

interface Guest {
  readonly testpmd: Testpmd;
  readonly device: NetDevice;
  readonly port: ReturnType<typeof switchPort>;
}

/** Runs `body` with these front-ends as members of one switch; each sends to the `peer` of its own. */
async function withGuests(
  guests: readonly { readonly mode: string; readonly peer: number }[],
  body: (guests: readonly Guest[]) => Promise<void>,
): Promise<void> {
  const folder = await mkdtemp(join(tmpdir(), 'switch-dpdk-'));
  const ending: (() => Promise<unknown>)[] = [() => rm(folder, { recursive: true })];
  try {
    const thread = await DeviceThread.start();
    ending.push(() => thread.stop());
    const made: Guest[] = [];
    for (const [number, { mode, peer }] of guests.entries()) {
      const port = switchPort();
      let device: NetDevice | undefined;
      const path = join(folder, `${number}`);
      const server = await VhostUserServer.listen(path, {
        createDevice: () => {
          device = new NetDevice(thread, { port });
          return device;
        },
      });
      ending.push(() => server.close());
      const testpmd = await Testpmd.start({
        vdevs: [`net_virtio_user0,path=${path},mac=${macOf(number)}`],
        options: [`--forward-mode=${mode}`, `--eth-peer=0,${macOf(peer)}`, '--port-topology=loop'],
        megabytes: 192,
      });
      ending.push(() => testpmd.quit());
      made.push({ testpmd, device: device!, port });
    }
    await body(made);
  } finally {
    for (const end of ending.reverse()) await end();
  }
}

/** Packets of one burst that testpmd printed, by addresses. */
function printed(testpmd: Testpmd, from: number): Record<string, number> {
  const found: Record<string, number> = {};
  for (const [, source, destination] of testpmd.output.slice(from).matchAll(/src=([\w:]+) - dst=([\w:]+)/g)) {
    const key = `${source} to ${destination}`.toLowerCase();
    found[key] = (found[key] ?? 0) + 1;
  }
  return found;
}

const sum = (counts: Record<string, number>): number => Object.values(counts).reduce((a, b) => a + b, 0);

test('a burst of one reaches the other with the right addresses, and a third only until the switch has learned', () =>
  withGuests(
    [
      { mode: 'rxonly', peer: 1 },
      { mode: 'rxonly', peer: 0 },
      { mode: 'rxonly', peer: 0 },
    ],
    async (guests) => {
      const [first, second, third] = guests as [Guest, Guest, Guest];
      for (const { testpmd } of guests) await testpmd.command('set verbose 1', /Change verbose level/);
      await third.testpmd.command('start', /rxonly packet forwarding[\s\S]*testpmd> /);
      await second.testpmd.command('start', /rxonly packet forwarding[\s\S]*testpmd> /);
      const marks = guests.map(({ testpmd }) => testpmd.output.length);
      // testpmd sends one burst of 32 and goes on in its mode.
      await first.testpmd.command('start tx_first', /rxonly packet forwarding/);
      const there = { [`${macOf(0)} to ${macOf(1)}`]: 32 };
      await until(() => sum(printed(second.testpmd, marks[1]!)) >= 32, 'the burst to arrive', 20_000);
      await until(() => sum(printed(third.testpmd, marks[2]!)) >= 32, 'the third to see the flood', 20_000);
      assert.equal(printed(second.testpmd, marks[1]!), there);
      assert.equal(printed(third.testpmd, marks[2]!), there, 'where nobody knows the address, all see the packets');
      const third32 = third.port.statistics();
      await second.testpmd.command('stop', /Forward statistics/);
      await second.testpmd.command('start tx_first', /rxonly packet forwarding/);
      await until(() => sum(printed(first.testpmd, marks[0]!)) >= 32, 'the answer to arrive', 20_000);
      assert.equal(printed(first.testpmd, marks[0]!), { [`${macOf(1)} to ${macOf(0)}`]: 32 });
      assert.is(third.port.statistics().sent, third32.sent, 'the third sees nothing of the answer');
      assert.is(first.port.statistics().direct, 32, 'the answer is copied once');
      assert.is(first.port.statistics().flooded, 32);
      assert.is(second.port.statistics().flooded, 0);
    },
  ));

test('a guest that sends without end: every packet arrives or is counted, none comes back', () =>
  withGuests(
    [
      { mode: 'txonly', peer: 1 },
      { mode: 'rxonly', peer: 0 },
    ],
    async (guests) => {
      const [sender, receiver] = guests as [Guest, Guest];
      await receiver.testpmd.command('start', /rxonly packet forwarding[\s\S]*testpmd> /);
      await sender.testpmd.command('start', /txonly packet forwarding/);
      await pause(1500);
      await sender.testpmd.command('stop', /Forward statistics/);
      await pause(500);
      // A busy machine takes longer: what still waits for the receiver is neither there nor dropped.
      const isDone = (): boolean => {
        const { drops, packets } = receiver.device.statistics(0);
        return packets + sum(drops) === receiver.port.statistics().sent;
      };
      await until(isDone, 'what was sent to arrive');
      const { received, dropNotTaken: _own, ...rest } = sender.port.statistics();
      const { sent, dropNotTaken } = receiver.port.statistics();
      const { drops, packets } = receiver.device.statistics(0);
      const dropped = sum(drops);
      let arrived = 0;
      for (let tries = 0; tries < 20 && arrived < packets; tries++) {
        const from = receiver.testpmd.output.length;
        await receiver.testpmd.command('show port stats 0', /RX-packets: \d+[\s\S]*Tx-pps/);
        arrived = Number(/RX-packets: (\d+)/.exec(receiver.testpmd.output.slice(from))![1]);
        if (arrived < packets) await pause(500);
      }
      assert.ok(received > 10_000, `${received} packets`);
      assert.is(sent + dropNotTaken, received, 'what came from one went to the other, or was counted as not taken');
      assert.is(packets + dropped, sent);
      assert.is(arrived, packets);
      assert.is(rest.sent, 0, 'nothing came back');
      assert.is(rest.moves, 0);
    },
  ));

test.run();
