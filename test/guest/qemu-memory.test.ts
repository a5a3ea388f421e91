/**
 * What QEMU says of memory and of the MTU: memory that is plugged into a running virtual machine and taken out again, with
 * several queue pairs and traffic; an MTU of the host's.
 */

import { suite } from 'uvu';
import * as assert from 'uvu/assert';

import { icmpEchoPort } from '../../driver/backend/ports/built-in.js';
import { transmitqIndex, virtioNetConfig } from '../../driver/spec/net-config.js';
import { GuestBackend } from '../support/guest-backend.js';
import { ANYBODY, assertPings, assertQuietKernel, bringUp, cardCounter, NETWORK } from '../support/guest-checks.js';
import { bootGuest, type Guest } from '../support/guest-machine.js';
import { skipWithout } from '../support/skip.js';
import { until } from '../support/until.js';

export const timeBoundSeconds = 240;

const test = skipWithout(suite('virtual machine, memory and MTU'), 'qemu', 'kernel', 'busybox', 'ethtool');

const MTU = 1400;
const ROUNDS = 2;
/** On each processor; together they take as long as the rest does. An emulated processor has no power to spare for more. */
const PINGS = 80;
const ADDED_BYTES = 128 << 20;
const PATIENCE_MS = 60_000;

/** Bytes that the front-end shares now. */
function shared(backend: GuestBackend): number {
  for (const event of [...backend.events].reverse()) if (event.type === 'memory') return Number(event.bytes);
  return 0;
}

async function plug(guest: Guest, round: number): Promise<void> {
  const file = { 'qom-type': 'memory-backend-memfd', id: `added${round}`, size: ADDED_BYTES, share: true };
  await guest.qmp.execute('object-add', file);
  await guest.qmp.execute('device_add', { driver: 'pc-dimm', id: `dimm${round}`, memdev: `added${round}` });
}

/** The guest's kernel lets go of it first, which it can: it has put nothing there. */
async function unplug(guest: Guest, round: number): Promise<void> {
  const gone = guest.qmp.next('DEVICE_DELETED', PATIENCE_MS);
  await guest.qmp.execute('device_del', { id: `dimm${round}` });
  await gone;
  await guest.qmp.execute('object-del', { id: `added${round}` });
}

/** Prints how many blocks of memory the guest's kernel knows. */
const BLOCKS = 'ls -d /sys/devices/system/memory/memory[0-9]* | wc -l';

/** How many echo requests the guest's kernel sent, and how many replies it got: ping itself misses some when it is held up. */
async function echoes(guest: Guest): Promise<readonly (number | undefined)[]> {
  const [names, values] = (await guest.run("grep '^Icmp:' /proc/net/snmp")).split('\n').map((line) => line.split(' '));
  return ['OutEchos', 'InEchoReps'].map((name) => Number(values?.[names?.indexOf(name) ?? -1]));
}

/** What one side has sent, the other has received, on all rings together: in the end, for packets still come. */
async function assertNothingLost(guest: Guest, backend: GuestBackend): Promise<void> {
  const moved = (rings: readonly number[]): number =>
    rings.reduce((sum, ring) => sum + backend.statistics(ring).packets, 0);
  for (const deadline = performance.now() + PATIENCE_MS; ; ) {
    const ours = [moved([1, 3]), moved([0, 2])];
    const theirs = [await cardCounter(guest, 'tx_packets'), await cardCounter(guest, 'rx_packets')];
    const [asked, answered] = await echoes(guest);
    if (`${ours}` === `${theirs}` && asked === answered) {
      assert.ok(Number(asked) >= 2 * PINGS, `${asked} requests`);
      break;
    }
    assert.ok(
      performance.now() < deadline,
      `the back-end counts ${ours}, the guest ${theirs}; ${asked} echo requests, ${answered} replies`,
    );
  }
  for (const ring of [0, 1, 2, 3]) {
    const { drops } = backend.statistics(ring);
    assert.is(
      Object.values(drops).reduce((sum, value) => sum + value, 0),
      0,
      JSON.stringify(drops),
    );
  }
}

// QEMU before 8.0 says for each pair by itself what comes and goes.
test('memory comes and goes twice while two queue pairs carry packets; none is lost for it', async () => {
  await using backend = await GuestBackend.start({ port: icmpEchoPort(), queuePairs: 2 });
  await using guest = await bootGuest({
    cards: [{ path: backend.path, queues: 2, properties: [`host_mtu=${MTU}`] }],
    smp: 2,
    memorySlots: { count: 2, mostMb: 1024 },
    programs: ['/usr/sbin/ethtool'],
  });
  await bringUp(guest, `${NETWORK}1`);
  const { mtu } = virtioNetConfig.read(new DataView(backend.device.config.buffer));
  assert.is(mtu, MTU, 'NET_SET_MTU has come');
  assert.is(Number(await guest.run('cat /sys/class/net/eth0/mtu')), MTU, 'the guest was told, too');
  await assertPings(guest, ANYBODY, { bytes: MTU - 28, count: 2 });
  await guest.run('ethtool -L eth0 combined 2');
  // Each processor sends on a queue of its own.
  for (const cpu of [0, 1]) {
    await guest.run(`taskset ${1 << cpu} ping -c ${PINGS} -i 0.1 -q ${ANYBODY} >/tmp/ping${cpu} 2>&1 &`);
  }
  const [before, known] = [shared(backend), Number(await guest.run(BLOCKS))];
  for (let round = 0; round < ROUNDS; round++) {
    await plug(guest, round);
    await until(() => shared(backend) === before + ADDED_BYTES, 'the memory to be shared', PATIENCE_MS);
    await guest.run(waitFor(`[ $(${BLOCKS}) -gt ${known} ]`));
    await unplug(guest, round);
    await until(() => shared(backend) === before, 'the memory to be gone', PATIENCE_MS);
    await assertPings(guest, ANYBODY, { count: 3 });
  }
  const sent = (pair: number): number => backend.statistics(transmitqIndex(pair)).packets;
  await until(() => sent(0) > 10 && sent(1) > 10, 'packets on both pairs', PATIENCE_MS);
  for (const cpu of [0, 1]) await guest.run(waitFor(`grep -q transmitted /tmp/ping${cpu}`));
  await assertNothingLost(guest, backend);
  assert.is(backend.devices.length, 1, 'the connection stayed');
  assert.equal(backend.errors, []);
  await assertQuietKernel(guest);
});

/** The script that waits until a command succeeds. */
const waitFor = (command: string): string =>
  `for i in $(seq 250); do if ${command}; then exit 0; fi; usleep 100000; done; exit 1`;

test.run();
