/** What the driver owes the specification as a network driver, over every way there is, with a recorder behind it (spec-D31 to D42). */

import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { offeredFeatures } from '../../driver/backend/net-device-offer.js';
import { Burst } from '../../driver/memory/burst.js';
import { PacketField, PacketFlag } from '../../driver/memory/packet-fields.js';
import { Feature } from '../../driver/spec/features.js';
import { HashType, virtioNetConfig } from '../../driver/spec/net-config.js';
import { virtioNetHdr } from '../../driver/spec/net-header.js';
import { refusal } from '../support/driver-abuse.js';
import { HASH_KEY } from '../support/flow-packets.js';
import { HandDevice } from '../support/hand-device.js';
import { assertPackets, pattern } from '../support/hand-guest.js';
import { PackedHandDevice } from '../support/packed-hand-device.js';
import { RecordedPort, type Via } from '../support/spec/recorded-port.js';

const test = suite('driver of a network device');
const rings = ['split', 'packed'] as const;
const ways: readonly (readonly [via: Via, ring: 'split' | 'packed'])[] = [
  ['modern', 'split'],
  ['modern', 'packed'],
  ['legacy', 'split'],
  ['vhost-user', 'split'],
  ['vhost-user', 'packed'],
];
const OWN = Uint8Array.of(2, 0, 0, 0, 0, 7);
const GROUP = Uint8Array.of(1, 0, 0x5e, 0, 0, 9);
const TURNS = 50;

/** Sends packets on a pair and takes them back. */
function echo(both: RecordedPort, pair: number, packets: readonly Uint8Array[]): void {
  const came: Uint8Array[] = [];
  for (const packet of packets) assert.ok(both.send(pair, [packet]), 'there is room');
  for (let turn = 0; turn < TURNS && came.length < packets.length; turn++) {
    both.device.poll();
    came.push(...both.receive(pair));
  }
  both.check();
  assertPackets(came, packets, `pair ${pair}`);
}

for (const [via, ring] of ways) {
  test(`spec-D32, spec-D37: no header asks for anything, and no packet is above the MTU (${via}, ${ring})`, async () => {
    const mtu = 1000;
    const offered = offeredFeatures({ mtu });
    await using both = await RecordedPort.open(via, { offered, mtu, maxRingSize: 64 }, { ring });
    await both.start();
    const longest = both.port.maxFrameBytes!;
    const before = both.device.published;
    echo(both, 0, [pattern(1, longest), pattern(2, 60)]);
    assert.ok(both.device.published > before);
    both.send(0, [pattern(3, longest + 1)]);
    both.device.poll();
    assert.is(both.port.statistics().tx[0]?.packets, 2, 'the one that is too long is not sent');
    both.check();
  });

  test(`spec-D31: nothing that the device has is changed, and all comes back after a reset (${via}, ${ring})`, async () => {
    const offered = offeredFeatures({});
    await using both = await RecordedPort.open(via, { offered, maxRingSize: 64 }, { ring });
    for (let round = 0; round < 3; round++) {
      await both.start();
      echo(both, 0, [pattern(round, 200)]);
      // In flight when the device is reset: the recorder has seen them, and the device never uses them.
      for (let number = 0; number < 5; number++) both.send(0, [pattern(number, 100)]);
      both.check();
      both.send(0, [pattern(9, 100)]);
      await both.port.stop();
    }
    both.check();
  });

  test(`spec-D39: packets on the pairs that were turned on, and no others (${via}, ${ring})`, async () => {
    const offered = offeredFeatures({ queuePairs: 4 });
    const device = { offered, queuePairs: 4, maxRingSize: 64 };
    for (const queues of [1, 3]) {
      await using both = await RecordedPort.open(via, device, { ring, queues });
      await both.start();
      for (let pair = 0; pair < queues; pair++) echo(both, pair, [pattern(pair, 100), pattern(pair + 4, 70)]);
      assert.throws(() => both.port.txQueue(queues), 'there is no queue beyond');
      both.check();
    }
  });
}

for (const ring of rings) {
  test(`spec-D40, spec-D41, spec-D42, spec-E17, spec-E20: commands of every class, and their answers (${ring})`, async () => {
    const offered = offeredFeatures({ queuePairs: 2 });
    const device = { offered, queuePairs: 2, maxRingSize: 64 };
    await using both = await RecordedPort.open('modern', device, { ring, queues: 2, vlanFilter: true });
    await both.start();
    const { control } = both.port;
    const before = both.device.published;
    await both.while(
      (async () => {
        await control.setPromiscuous(true);
        await control.setAllMulticast(true);
        await control.setReceiveMode('noBroadcast', true);
        await control.setMacAddress(OWN);
        await control.addMacAddress(GROUP);
        await control.setVlan(5, true);
        await control.setVlan(5, false);
        await control.setRss({ key: HASH_KEY, hashTypes: HashType.IPv4 | HashType.TCPv4, table: [0, 1, 1, 0] });
        await control.setCoalescing({ direction: 'rx' }, { maxPackets: 0, maxMicroseconds: 0 });
        await control.setCoalescing({ direction: 'tx', pair: 1 }, { maxPackets: 0, maxMicroseconds: 0 });
        await control.coalescing('tx', 1);
        await control.setGuestOffloads([]);
      })(),
    );
    const { mac } = virtioNetConfig.fields;
    assert.equal(both.device.config.slice(mac.offset, mac.offset + mac.bytes), OWN);
    assert.ok(both.device.published - before >= 12, 'the recorder saw each');
    await refusal(both.while(control.setGuestOffloads([Feature.GUEST_UFO])), 'UNSUPPORTED');
    both.check();
    // A start makes all settings again.
    await both.port.stop();
    await both.start();
    both.check();
  });
}

/** A header that says everything that a driver without offloads must not act on, but one buffer. */
const nonsense = (): Uint8Array => {
  const header = new Uint8Array(virtioNetHdr.bytes).fill(0xff);
  header.set([1, 0], virtioNetHdr.fields.num_buffers.offset);
  return header;
};

for (const ring of rings) {
  test(`spec-D36: unknown flags, lengths of headers and checksums that nobody agreed on mean nothing (${ring})`, () => {
    const packet = pattern(5, 100);
    const bytes = Uint8Array.from([...nonsense(), ...packet]);
    using device = ring === 'split' ? new HandDevice() : new PackedHandDevice();
    if (device instanceof HandDevice) {
      const [id] = device.rxRing.take(1);
      device.rxRing.buffer(id!).set(bytes);
      device.rxRing.use(id!, bytes.length);
      device.rxRing.publish();
    } else {
      const [chain] = device.rxRing.takeSome(1);
      device.rxRing.bytes(chain!).set(bytes);
      device.rxRing.use(chain!, bytes.length);
    }
    const burst = new Burst(device.pool, 4);
    assert.is(device.rx.receive(burst), 1);
    assertPackets([burst.bytes(0).copyPacket()], [packet]);
    const flags = device.pool.fields[burst.handles[0]! * PacketField.WORDS + PacketField.FLAGS]!;
    assert.is(flags & (PacketFlag.CHECKSUM_VALID | PacketFlag.NEEDS_CHECKSUM), 0, 'no checksum is trusted');
    burst.free();
  });
}

for (const [speed, duplex] of [
  [0x8000_0000, 1],
  [0xffff_ffff, 0xff],
  [10_000, 2],
] as const) {
  test(`spec-D38: a speed of ${speed} and duplex ${duplex} are as good as unknown`, async () => {
    const offered = offeredFeatures({}).with(Feature.SPEED_DUPLEX);
    await using both = await RecordedPort.open('modern', { offered, maxRingSize: 64 });
    virtioNetConfig.write(new DataView(both.device.config.buffer), { speed, duplex });
    await both.start();
    echo(both, 0, [pattern(1, 60)]);
    // A driver that has no use for them leaves them where they are.
    const { speed: at } = virtioNetConfig.fields;
    const reads = both.log.accesses.filter(({ region, offset }) => region === 'device' && offset === at.offset);
    assert.is(reads.length > 0, both.port.features!.has(Feature.SPEED_DUPLEX), 'read where it was accepted');
    assert.equal(both.port.warnings, []);
    both.check();
  });
}

test.run();
