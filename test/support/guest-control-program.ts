/**
 * What runs in the guest: has a device that returns all packets choose which of them it passes, and in which queue, by each
 * command that it knows (virtio 1.2 §5.1.6.5), and sees whether it does.
 *
 *   node guest-control-program.js 0000:00:04.0 '{"ring":"packed"}'
 *
 * One line for each matter that was as it should be; an error ends it.
 */

import * as assert from 'uvu/assert';

import type { Port } from '../../driver/net/port.js';
import { openPort } from '../../driver/open.js';
import { HashType } from '../../driver/spec/net-config.js';
import { address4, HASH_KEY, ipv4, referenceHash, tagged, udp } from './flow-packets.js';
import { exchange, packetTo } from './packet-exchange.js';

const PAIRS = 2;
const OTHER = Uint8Array.of(2, 0, 0, 0, 0, 9);
const GROUP = Uint8Array.of(1, 0, 0x5e, 0, 0, 9);
const BROADCAST = new Uint8Array(6).fill(0xff);
const FLOWS = 16;
const ANNOUNCEMENTS = 2;
const ANNOUNCED_MS = 60_000;

/** Whether a packet to an address comes back; one to `last` does. */
const comesBack = async (port: Port, to: Uint8Array, last?: Uint8Array): Promise<boolean> =>
  (await exchange(port, PAIRS, [packetTo(to)], last))[0] !== undefined;

/** Asserts which of the packets to somebody else, to a group, to everybody and to the port itself come. */
async function assertComes(port: Port, expected: readonly ('other' | 'group' | 'everybody' | 'own')[]): Promise<void> {
  const own = port.macAddress!;
  // The last one has to come: it is to whom packets are known to.
  const last = expected.includes('own') ? own : BROADCAST;
  const came = await exchange(port, PAIRS, [OTHER, GROUP, BROADCAST, own].map(packetTo), last);
  const names = (['other', 'group', 'everybody', 'own'] as const).filter((_, index) => came[index] !== undefined);
  assert.equal(names, expected);
}

async function receiveModes(port: Port): Promise<void> {
  const { control } = port;
  await control.setPromiscuous(false);
  await assertComes(port, ['everybody', 'own']);
  await control.setPromiscuous(true);
  await assertComes(port, ['other', 'group', 'everybody', 'own']);
  await control.setPromiscuous(false);
  await control.setAllMulticast(true);
  await assertComes(port, ['group', 'everybody', 'own']);
  await control.setReceiveMode('noMulticast', true);
  await assertComes(port, ['everybody', 'own']);
  await control.setReceiveMode('noMulticast', false);
  await control.setAllMulticast(false);
  await control.setReceiveMode('allUnicast', true);
  await assertComes(port, ['other', 'everybody', 'own']);
  await control.setReceiveMode('noUnicast', true);
  await assertComes(port, ['everybody']);
  await control.setReceiveMode('noUnicast', false);
  await control.setReceiveMode('allUnicast', false);
  await control.setReceiveMode('noBroadcast', true);
  await assertComes(port, ['own']);
  await control.setReceiveMode('noBroadcast', false);
  await assertComes(port, ['everybody', 'own']);
}

async function addresses(port: Port): Promise<void> {
  const { control } = port;
  await control.addMacAddress(OTHER);
  await control.addMacAddress(GROUP);
  await assertComes(port, ['other', 'group', 'everybody', 'own']);
  await control.removeMacAddress(OTHER);
  await assertComes(port, ['group', 'everybody', 'own']);
  await control.removeMacAddress(GROUP);
  await assertComes(port, ['everybody', 'own']);
  const first = port.macAddress!.slice();
  await control.setMacAddress(OTHER);
  assert.ok(await comesBack(port, OTHER));
  assert.not(await comesBack(port, first), 'not the port any more');
  await control.setMacAddress(first);
  await assertComes(port, ['everybody', 'own']);
}

async function vlans(port: Port): Promise<void> {
  const { control } = port;
  const own = packetTo(port.macAddress!);
  const pass = async (): Promise<number[]> => {
    const identifiers = [5, 6, 4095];
    const came = await exchange(
      port,
      PAIRS,
      identifiers.map((identifier) => tagged(own, 0x8100, identifier)),
    );
    return identifiers.filter((_, index) => came[index] !== undefined);
  };
  assert.equal(await pass(), []);
  await control.setVlan(5, true);
  await control.setVlan(4095, true);
  assert.equal(await pass(), [5, 4095]);
  await control.setVlan(5, false);
  assert.equal(await pass(), [4095]);
}

async function steering(port: Port): Promise<void> {
  const { control } = port;
  const limits = await control.rssLimits();
  assert.equal([limits.maxKeyBytes, limits.maxTableEntries], [40, 128]);
  const [from, to] = [address4('192.168.1.2'), address4('10.20.30.40')];
  const flows = Array.from({ length: FLOWS }, (_, number) => {
    const packet = ipv4(from, to, udp(1000 + number, 80));
    packet.set(port.macAddress!);
    return { packet, input: [...from, ...to, 0x03, 0xe8 + number, 0, 80] };
  });
  for (const key of [HASH_KEY, HASH_KEY.toReversed()]) {
    for (const table of [[1], [0, 1], Array.from({ length: 128 }, (_, entry) => (entry >>> 3) & 1)]) {
      await control.setRss({ key, hashTypes: HashType.IPv4 | HashType.UDPv4, table });
      assert.equal(
        await exchange(
          port,
          PAIRS,
          flows.map(({ packet }) => packet),
        ),
        flows.map(({ input }) => table[referenceHash(key, input) & (table.length - 1)]),
        `${table.length} entries`,
      );
    }
  }
  // By the addresses alone all flows are one.
  await control.setRss({ key: HASH_KEY, hashTypes: HashType.IPv4, table: [0, 1] });
  const queue = referenceHash(HASH_KEY, [...from, ...to]) & 1;
  const came = await exchange(
    port,
    PAIRS,
    flows.map(({ packet }) => packet),
  );
  assert.equal(came, new Array(FLOWS).fill(queue));
}

/** All that was set is there after the device was reset. */
async function again(port: Port): Promise<void> {
  await port.stop();
  await port.start();
  await assertComes(port, ['everybody', 'own']);
  const own = packetTo(port.macAddress!);
  assert.equal(
    (await exchange(port, PAIRS, [tagged(own, 0x8100, 5), tagged(own, 0x8100, 4095)])).map(
      (came) => came !== undefined,
    ),
    [false, true],
  );
}

/** The device announces again when it was told that its announcement was heard. */
async function announcements(port: Port): Promise<void> {
  await new Promise<void>((resolve, reject) => {
    let count = 0;
    const timer = setTimeout(() => reject(new Error(`${count} announcements`)), ANNOUNCED_MS);
    port.on('announce', () => {
      if (++count < ANNOUNCEMENTS) return;
      clearTimeout(timer);
      resolve();
    });
    console.log('announce me');
  });
}

const [, , address, options] = process.argv;
await using port = await openPort(address!, { ...JSON.parse(options!), queues: PAIRS, vlanFilter: true });
await port.start();
for (const [name, step] of Object.entries({ receiveModes, addresses, vlans, steering, again })) {
  await step(port);
  console.log(`done ${name}`);
}
await port.control.setGuestOffloads([]);
console.log('done guestOffloads');
await announcements(port);
console.log('done announcements');
