/** A device that answers commands of the port wrongly, or not at all (abuse D33): packets flow on, and the call says what happened. */

import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { ErrorCode, type VirtioError } from '../../driver/errors.js';
import { Feature } from '../../driver/spec/features.js';
import { againstDevice, type Bench, refusal, sendPackets } from '../support/driver-abuse.js';
import { until } from '../support/until.js';

const test = suite('port against a device that answers commands wrongly');
/** The device has two pairs, whatever the driver makes of them. */
const CONTROL = 4;
const offers = [Feature.CTRL_VQ, Feature.CTRL_RX, Feature.CTRL_MAC_ADDR, Feature.NOTF_COAL, Feature.VQ_NOTF_COAL];
const COALESCING = { maxPackets: 7, maxMicroseconds: 9 };
const OTHER = Uint8Array.of(2, 0, 0, 0, 0, 9);

/** Answers the next command: an ack, what stands behind it, and what the used ring says of it. */
async function answer(
  bench: Bench,
  ack: number,
  result: readonly number[] = [],
  id?: number,
  length?: number,
): Promise<Uint8Array> {
  const ring = bench.device.ring(CONTROL);
  let heads: number[] = [];
  await until(() => {
    heads = [...heads, ...ring.take()];
    return heads.length > 0;
  }, 'a command');
  const head = heads[0]!;
  const command = ring.buffer(head).slice();
  ring.buffer(head + 1).set([ack, ...result].slice(0, ring.buffer(head + 1).length));
  ring.use(id ?? head, length ?? 1 + result.length);
  ring.publish();
  return command;
}

/** Packets go as they did before. */
function checkPackets({ port, device }: Bench): void {
  assert.is(port.state, 'started');
  assert.is(sendPackets(port, 3), 3);
  assert.is(device.ring(1).take().length, 3);
}

const against = (body: (bench: Bench) => Promise<void>): Promise<void> =>
  againstDevice({ offers }, async (bench) => {
    await bench.start();
    await body(bench);
    checkPackets(bench);
    await bench.port.stop();
  });

test('abuse-D33: refusals, and acks that are none: the call fails, the setting is not made, the next one goes', () =>
  against(async (bench) => {
    const { control } = bench.port;
    const before = bench.port.macAddress!;
    for (const ack of [1, 2, 0x77, 0xff]) {
      const refused = refusal(control.setPromiscuous(true), ErrorCode.REQUEST_REFUSED, /RX\/PROMISC/);
      await answer(bench, ack);
      await refused;
      assert.not(control.promiscuous);
      const address = refusal(control.setMacAddress(OTHER), ErrorCode.REQUEST_REFUSED, /MAC\/ADDR_SET/);
      await answer(bench, ack);
      await address;
      assert.equal(bench.port.macAddress, before);
    }
    const done = control.setPromiscuous(true);
    assert.equal([...(await answer(bench, 0))], [0, 0, 1]);
    await done;
    assert.ok(control.promiscuous);
  }));

test('abuse-D33: a table that the device refuses: all packets instead, and where that is refused too, the call fails', () =>
  against(async (bench) => {
    const { control } = bench.port;
    const added = control.addMacAddress(OTHER);
    assert.equal([...(await answer(bench, 1))].slice(0, 7), [1, 0, 1, 0, 0, 0, 2]);
    assert.equal([...(await answer(bench, 0))], [0, 0, 1]);
    await added;
    assert.ok(control.passesMoreAddresses);
    const refused = refusal(control.addMacAddress(Uint8Array.of(2, 0, 0, 0, 0, 8)), ErrorCode.REQUEST_REFUSED);
    await answer(bench, 1);
    await answer(bench, 1);
    await refused;
    assert.is(control.macAddresses.length, 1);
  }));

test('abuse-D33: results that were not written, or not wholly, by what the used ring says', () =>
  against(async (bench) => {
    const { control } = bench.port;
    const bytes = [7, 0, 0, 0, 9, 0, 0, 0];
    for (const length of [0, 1, 8]) {
      const broken = refusal(control.coalescing('rx', 0), ErrorCode.DEVICE_BROKEN, /wrote/);
      await answer(bench, 0, bytes, undefined, length);
      await broken;
    }
    for (const length of [9, 10, 0xffff_ffff]) {
      const good = control.coalescing('rx', 0);
      await answer(bench, 0, bytes, undefined, length);
      assert.equal(await good, COALESCING);
    }
    const refused = refusal(control.coalescing('rx', 0), ErrorCode.REQUEST_REFUSED);
    await answer(bench, 1, bytes);
    await refused;
  }));

test('abuse-D33: an answer to another command: the control queue is broken from there on, the port is not', () =>
  against(async (bench) => {
    const { control } = bench.port;
    const broken = refusal(control.setAllMulticast(true), ErrorCode.RING_BROKEN);
    await answer(bench, 0, [], 3);
    await broken;
    for (const call of [control.setAllMulticast(true), control.setPromiscuous(true)])
      assert.is((await call.catch((error) => error)).code, ErrorCode.RING_BROKEN);
    checkPackets(bench);
    // Started again, it has a queue that works.
    await bench.port.stop();
    await bench.start();
    const done = control.setAllMulticast(true);
    await answer(bench, 0);
    await done;
  }));

test('abuse-D33: no answer: the call ends with TIMEOUT, packets flow meanwhile, and closing waits for nobody', () =>
  againstDevice({ offers }, async (bench) => {
    await bench.start();
    const { control } = bench.port;
    const ended = refusal(control.setPromiscuous(true), ErrorCode.TIMEOUT);
    let rounds = 0;
    for (; rounds < 10; rounds++) {
      checkPackets(bench);
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
    await ended;
    assert.is((await control.setPromiscuous(true).catch((error) => error)).code, ErrorCode.RING_BROKEN);
    checkPackets(bench);
    await bench.port.stop();
    await bench.start();
    const cut = control.setPromiscuous(true).catch((error) => error.code);
    const start = performance.now();
    await bench.port.close();
    assert.ok(performance.now() - start < 3000, 'closed at once');
    assert.is.not(await cut, undefined);
  }));

test('abuse-D33: a stop waits for no answer, however many commands are to come; the next start has a queue that works', () =>
  againstDevice({ offers: [...offers, Feature.CTRL_VLAN], port: { vlanFilter: true } }, async (bench) => {
    await bench.start();
    const { control } = bench.port;
    const cut = refusal(control.setVlanFilter(false), ErrorCode.WRONG_STATE);
    for (let vlan = 0; vlan < 10; vlan++) await answer(bench, 0);
    const began = performance.now();
    await bench.port.stop();
    assert.ok(performance.now() - began < 3000, 'at once');
    await cut;
    await bench.start();
    const done = control.setVlan(7, true);
    await answer(bench, 0);
    await done;
    checkPackets(bench);
  }));

test('device statistics of another type or queue, or too short, are none', () =>
  againstDevice({ offers: [...offers, Feature.DEVICE_STATS] }, async (bench) => {
    await bench.start();
    const { control } = bench.port;
    const basic = (type: number, queue: number, size: number): number[] => [
      ...[type, 0, queue, 0, 0, 0, size, 0],
      ...new Array(48).fill(9),
    ];
    for (const part of [basic(1, 0, 56), basic(0, 2, 56), basic(0, 0, 55), basic(0, 0, 0)]) {
      const broken = refusal(control.deviceStatistics(), ErrorCode.DEVICE_BROKEN, /asked for RX_BASIC of queue 0/);
      // It keeps RX_BASIC alone.
      await answer(bench, 0, [1, 0, 0, 0, 0, 0, 0, 0]);
      assert.equal([...(await answer(bench, 0, part))].slice(0, 11), [8, 1, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
      await broken;
    }
    const read = control.deviceStatistics();
    await answer(bench, 0, [1, 0, 0, 0, 0, 0, 0, 0]);
    await answer(bench, 0, basic(0, 0, 64));
    const { rx, tx, control: commands } = await read;
    assert.is(rx[0]!['rx_packets'], 0x0909_0909_0909_0909n);
    assert.equal([tx, commands], [[{}], {}]);
    await bench.port.stop();
  }));

test('settings that a device refuses at the next start fail that start, and it can be tried again', () =>
  againstDevice({ offers }, async (bench) => {
    await bench.start();
    const { control } = bench.port;
    const done = control.setPromiscuous(true);
    await answer(bench, 0);
    await done;
    await bench.port.stop();
    const refused = refusal(bench.port.start(), ErrorCode.REQUEST_REFUSED, /RX\/PROMISC/);
    await until(() => bench.device.setups.has(CONTROL), 'the queues');
    await bench.fn.idle;
    await answer(bench, 1);
    await refused;
    assert.is(bench.port.state, 'stopped');
    const started = bench.port.start();
    await until(() => bench.device.setups.has(CONTROL), 'the queues');
    await bench.fn.idle;
    await answer(bench, 0);
    await started;
    assert.is(bench.port.state, 'started');
    await bench.port.stop();
  }));

test('a setting that the device has lost: the start says how to forget it, and works without it', () =>
  againstDevice({ offers }, async (bench) => {
    await bench.start();
    const { control } = bench.port;
    const [mode, address] = [control.setPromiscuous(true), control.setMacAddress(OTHER)];
    for (const done of [mode, address]) {
      await answer(bench, 0);
      await done;
    }
    await bench.port.stop();
    const failed = bench.port.start().catch((error: VirtioError) => error);
    await until(() => bench.device.setups.has(CONTROL), 'the queues');
    await bench.fn.idle;
    await answer(bench, 1);
    const { code, message, advice } = (await failed) as VirtioError;
    assert.is(code, ErrorCode.REQUEST_REFUSED);
    assert.match(message, /RX\/PROMISC.*receiveModes/);
    assert.match(advice!, /control\.forget\('receiveModes'\)/);
    control.forget('receiveModes');
    assert.not(control.promiscuous);
    const started = bench.port.start();
    await until(() => bench.device.setups.has(CONTROL), 'the queues');
    await bench.fn.idle;
    assert.equal([...(await answer(bench, 0))], [1, 1, ...OTHER], 'the other one is made again');
    await started;
    await bench.port.stop();
    control.forget();
    await bench.start();
    assert.equal(bench.device.ring(CONTROL).take(), [], 'nothing is made again');
    await bench.port.stop();
  }));

test.run();
