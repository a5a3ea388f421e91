/** A port's offloads: what is asked for, who does it and why, and that launched threads do it too. */

import { setTimeout as delay } from 'node:timers/promises';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { launch, openPort, PacketFlag, type Port, type PortOffloads } from '../../driver/index.js';
import { negotiate, wishes } from '../../driver/net/negotiation.js';
import { offloadOutcomes, rxOffloads, txOffloads } from '../../driver/net/port-offloads.js';
import { Feature, FeatureSet } from '../../driver/spec/features.js';
import { type Back, exchangeBoth, Gate } from '../support/offload-worker.js';

const test = suite('offloads of a port');
const ALL: PortOffloads = {
  txChecksum: true,
  tso: true,
  uso: true,
  ufo: true,
  vlanInsert: true,
  rxChecksum: true,
  lro: true,
  uro: true,
  ufoReceive: true,
  vlanStrip: true,
  rssHash: true,
};
const OFFLOAD_BITS = [0, 1, 7, 8, 9, 10, 11, 12, 13, 14, 54, 55, 56, 57, 59, 61];
const BASE = [Feature.VERSION_1, Feature.MRG_RXBUF, Feature.CTRL_VQ];

const negotiated = (offered: readonly number[], offloads: PortOffloads, mergeable = true) =>
  negotiate(
    { device: FeatureSet.of(...BASE, ...offered), transport: FeatureSet.EMPTY },
    wishes({ queuePairs: 1, offloads, mergeable }),
  );

test('without offloads none of their features is accepted', () => {
  const { features } = negotiated(OFFLOAD_BITS, {});
  assert.is(
    OFFLOAD_BITS.find((bit) => features.has(bit)),
    undefined,
  );
  assert.is(rxOffloads({}, features), undefined);
});

test('each offload asks for its own features, and for those that these need (§5.1.3.1)', () => {
  const asked = (offloads: PortOffloads): string =>
    negotiated(OFFLOAD_BITS, offloads)
      .features.without(...BASE)
      .toString();
  assert.is(asked({ txChecksum: true }), 'CSUM | GUEST_HDRLEN');
  assert.is(asked({ tso: true }), 'CSUM | HOST_TSO4 | HOST_TSO6 | HOST_ECN | GUEST_HDRLEN');
  assert.is(asked({ uso: true }), 'CSUM | HOST_USO | GUEST_HDRLEN');
  assert.is(asked({ ufo: true }), 'CSUM | HOST_UFO | GUEST_HDRLEN');
  assert.is(asked({ ufoReceive: true }), 'GUEST_CSUM | GUEST_UFO');
  assert.is(asked({ rxChecksum: true }), 'GUEST_CSUM');
  assert.is(asked({ lro: true }), 'GUEST_CSUM | GUEST_TSO4 | GUEST_TSO6 | GUEST_ECN');
  assert.is(asked({ lro: true, tso: true }).endsWith('GUEST_HDRLEN | RSC_EXT'), true);
  assert.is(asked({ uro: true }), 'GUEST_CSUM | GUEST_USO4 | GUEST_USO6');
  assert.is(asked({ rssHash: true }), 'HASH_REPORT');
  assert.is(asked({ vlanInsert: true, vlanStrip: true }), 'none');
});

test('a feature whose requirement is not offered is dropped with the reason (§5.1.3.1, abuse D12)', () => {
  const { features, outcomes } = negotiated([Feature.HOST_TSO4, Feature.GUEST_TSO4, Feature.GUEST_USO4], ALL);
  assert.is(features.without(...BASE).toString(), 'none');
  const explained = (bit: Feature) => outcomes.find(({ feature }) => feature === bit)?.explanation;
  assert.is(explained(Feature.HOST_TSO4), 'offered, but it needs CSUM, which was not accepted');
  assert.is(explained(Feature.GUEST_TSO4), 'offered, but it needs GUEST_CSUM, which was not accepted');
});

test('long packets are refused without MRG_RXBUF: "buffers of at least 65562 bytes" are none of a pool’s (§5.1.6.3.1)', () => {
  const { features, outcomes } = negotiated(OFFLOAD_BITS, ALL, false);
  for (const bit of [Feature.GUEST_TSO4, Feature.GUEST_TSO6, Feature.GUEST_USO4, Feature.GUEST_USO6]) {
    assert.is(features.has(bit), false);
    const { explanation } = outcomes.find(({ feature }) => feature === bit)!;
    assert.is(explanation, 'offered, but it needs MRG_RXBUF, which was not accepted');
  }
  assert.ok(features.has(Feature.GUEST_CSUM) && features.has(Feature.HOST_TSO4));
});

test('who does what: the device with all features of an offload, else the driver where it can', () => {
  const by = (bits: readonly number[]): Record<string, string> =>
    Object.fromEntries(offloadOutcomes(ALL, FeatureSet.of(...bits)).map(({ name, by }) => [name, by]));
  const software = { vlanInsert: 'driver', vlanStrip: 'driver' };
  const either = ['txChecksum', 'tso', 'uso', 'ufo', 'rxChecksum'];
  const device = ['lro', 'uro', 'ufoReceive', 'rssHash'];
  const all = (list: readonly string[], who: string) => Object.fromEntries(list.map((name) => [name, who]));
  assert.equal(by(OFFLOAD_BITS), { ...software, ...all([...either, ...device], 'device') });
  assert.equal(by([]), { ...software, ...all(either, 'driver'), ...all(device, 'nobody') });
  // One version alone is not all of it.
  assert.is(by([Feature.CSUM, Feature.HOST_TSO4])['tso'], 'driver');
  for (const { by: who, explanation } of offloadOutcomes({}, FeatureSet.of(...OFFLOAD_BITS))) {
    assert.equal([who, explanation], ['nobody', 'the port was opened without it']);
  }
  assert.is(
    offloadOutcomes(ALL, FeatureSet.of(Feature.GUEST_TSO4)).find(({ name }) => name === 'lro')?.explanation,
    'GUEST_TSO6 was not accepted, and it cannot be done in software',
  );
});

test('queues tell and believe what was accepted, and nothing else', () => {
  assert.is(txOffloads(FeatureSet.of(...BASE)).flags, 0);
  const tso = FeatureSet.of(Feature.CSUM, Feature.HOST_TSO6);
  assert.is(txOffloads(tso).flags, PacketFlag.NEEDS_CHECKSUM | PacketFlag.SEGMENT_TCP6);
  const { flags, verifiesChecksums } = rxOffloads(ALL, FeatureSet.of(Feature.GUEST_CSUM, Feature.GUEST_TSO4))!;
  assert.is(flags, PacketFlag.NEEDS_CHECKSUM | PacketFlag.CHECKSUM_VALID | PacketFlag.SEGMENT_TCP4);
  assert.is(verifiesChecksums, false);
  assert.is(rxOffloads(ALL, FeatureSet.EMPTY)!.verifiesChecksums, true);
});

const { NEEDS_CHECKSUM, SEGMENT_TCP4 } = PacketFlag;
/** What a device that sends everything back makes of a short packet and a long one. */
const BOTH: readonly Back[] = [
  { flags: NEEDS_CHECKSUM, size: 0, isSame: true },
  { flags: NEEDS_CHECKSUM | SEGMENT_TCP4, size: 1400, isSame: true },
];

async function restartQueues(port: Port): Promise<void> {
  for (const direction of ['rx', 'tx'] as const) {
    await port.stopQueue(direction, 0);
    await port.startQueue(direction, 0, { ringSize: 128 });
  }
}

for (const ring of ['split', 'packed'] as const) {
  test(`a launched thread sends short and long packets and gets them, over merged buffers, after a restart too (${ring})`, async () => {
    await using port = await openPort('loopback:', { ring, offloads: { tso: true, lro: true } });
    assert.equal(port.offloads, []);
    for (let round = 0; round < 2; round++) {
      await port.start();
      assert.is(port.offloads.find(({ name }) => name === 'lro')?.by, 'device');
      const launched = await launch(port, new URL('../support/offload-worker.js', import.meta.url));
      const [back] = (await launched.finished) as Back[][];
      assert.equal(back, BOTH);
      await port.stop();
    }
  });

  test(`queues that were reset and started again do what they did before, here and on a thread (${ring}, §2.6.1)`, async () => {
    await using port = await openPort('loopback:', { ring, offloads: { tso: true, lro: true } });
    await port.start();
    assert.ok(port.features?.has(Feature.RING_RESET));
    const gate = new Int32Array(new SharedArrayBuffer(4));
    const worker = new URL('../support/offload-worker.js', import.meta.url);
    const launched = await launch(port, worker, { data: gate.buffer });
    while (Atomics.load(gate, 0) !== Gate.TAKEN) await delay(1);
    await restartQueues(port);
    Atomics.store(gate, 0, Gate.GO);
    const [back] = (await launched.finished) as Back[][];
    assert.equal(back, BOTH);
    await port.stop();
    await port.start();
    port.rxQueue(0);
    port.txQueue(0);
    await restartQueues(port);
    assert.equal(await exchangeBoth(port, () => delay(1, true)), BOTH);
  });
}

test.run();
