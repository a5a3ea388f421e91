/**
 * Commands about offloads, notifications and statistics (virtio 1.2 §5.1.6.5.8; 1.3 "Notifications Coalescing"; 1.4 "Device
 * Statistics"; spec-E3, spec-E20).
 */

import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { SharedState } from '../../driver/backend/shared-state.js';
import {
  ControlAck,
  ControlClass,
  GuestOffloadBit,
  GuestOffloadsCommand,
  NotfCoalCommand,
  StatsCommand,
  virtioNetCtrlCoal,
} from '../../driver/spec/control.js';
import { Feature } from '../../driver/spec/features.js';
import {
  NetStatsType,
  virtioNetStatsCapabilities,
  virtioNetStatsCvq,
  virtioNetStatsRxBasic,
  virtioNetStatsTxBasic,
} from '../../driver/spec/net-stats.js';
import { native } from '../../native/index.js';
import { COMMAND_FEATURES, CommandedGuest, le } from '../support/commanded-guest.js';

const test = suite('commands of the control queue');
const PAIRS = 3;
const CONTROL = 2 * PAIRS;

const offloads = (bits: bigint): number[] => [ControlClass.GUEST_OFFLOADS, GuestOffloadsCommand.SET, ...le(8, bits)];
const coalesce = (command: number, packets: number, usecs: number): number[] => [
  ControlClass.NOTF_COAL,
  command,
  ...le(4, packets, usecs),
];
const coalesceQueue = (queue: number, packets: number, usecs: number): number[] => [
  ...[ControlClass.NOTF_COAL, NotfCoalCommand.VQ_SET, ...le(2, queue, 0), ...le(4, packets, usecs)],
];
const coalescingOf = (queue: number): number[] => [ControlClass.NOTF_COAL, NotfCoalCommand.VQ_GET, ...le(2, queue, 0)];
const statsQuery = [ControlClass.STATS, StatsCommand.QUERY];
const stats = (...queues: readonly (readonly [queue: number, types: bigint])[]): number[] => [
  ControlClass.STATS,
  StatsCommand.GET,
  ...queues.flatMap(([queue, types]) => [...le(2, queue), ...new Array(6).fill(0), ...le(8, types)]),
];
const RX = 1n << BigInt(NetStatsType.RX_BASIC);
const TX = 1n << BigInt(NetStatsType.TX_BASIC);
const CVQ = 1n << BigInt(NetStatsType.CVQ);

const view = (bytes: Uint8Array): DataView => new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
const restart = (guest: CommandedGuest): void => {
  guest.hand.device.stopRing(CONTROL);
  guest.control.restart();
  guest.hand.startRaw(CONTROL, guest.control);
};

test('virtio 1.2 §5.1.6.5.8: offloads within what was accepted, and no others', () => {
  const bit = (number: number): bigint => 1n << BigInt(number);
  const shared = SharedState.create(CONTROL + 1);
  const { GUEST_CSUM, GUEST_TSO4, GUEST_TSO6, GUEST_USO4 } = Feature;
  using guest = new CommandedGuest(COMMAND_FEATURES.with(GUEST_CSUM, GUEST_TSO4, GUEST_USO4), PAIRS, undefined, shared);
  const all = bit(GUEST_CSUM) | bit(GUEST_TSO4) | bit(GUEST_USO4);
  assert.is(shared.guestOffloads, all, 'all are on at first');
  for (const wanted of [0n, bit(GUEST_CSUM), bit(GUEST_CSUM) | bit(GUEST_USO4), all]) {
    guest.set(offloads(wanted));
    assert.is(shared.guestOffloads, wanted);
  }
  for (const wanted of [
    bit(GUEST_TSO6),
    all | bit(0),
    all | bit(63),
    2n ** 64n - 1n,
    bit(GuestOffloadBit.GUEST_UDP_TUNNEL_GSO),
  ]) {
    guest.refuses(offloads(wanted), `0x${wanted.toString(16)}`);
  }
  for (const length of [2, 3, 9]) guest.refuses(offloads(0n).slice(0, length));
  guest.refuses([...offloads(0n), 0]);
  guest.refuses([ControlClass.GUEST_OFFLOADS, 1, ...le(8, 0)]);
  assert.is(shared.guestOffloads, all);
  guest.set(offloads(0n));
  restart(guest);
  assert.is(shared.guestOffloads, all, 'and again after the control queue starts afresh');
});

test('virtio 1.3: coalescing of all queues of a kind, of one queue, and what it is', () => {
  using guest = new CommandedGuest();
  const values = (): (readonly number[])[] =>
    Array.from({ length: 2 * PAIRS }, (_, queue) => {
      const { max_packets, max_usecs } = virtioNetCtrlCoal.read(view(guest.set(coalescingOf(queue))));
      return [max_packets, max_usecs];
    });
  assert.equal(values(), new Array(2 * PAIRS).fill([0, 0]));
  guest.set(coalesce(NotfCoalCommand.RX_SET, 8, 100));
  guest.set(coalesce(NotfCoalCommand.TX_SET, 0xffff_ffff, 0xffff_fffe));
  guest.set(coalesceQueue(2, 3, 4));
  const most = [0xffff_ffff, 0xffff_fffe];
  assert.equal(values(), [[8, 100], most, [3, 4], most, [8, 100], most]);
  guest.set(coalesce(NotfCoalCommand.RX_SET, 1, 2));
  assert.equal(values(), [[1, 2], most, [1, 2], most, [1, 2], most]);
  for (const queue of [CONTROL, CONTROL + 1, 0xffff]) {
    guest.refuses(coalesceQueue(queue, 1, 1));
    guest.refuses(coalescingOf(queue));
  }
  for (const bytes of [coalesce(0, 1, 1), coalesceQueue(0, 1, 1), coalescingOf(0)]) {
    for (let length = 2; length < bytes.length; length++) guest.refuses(bytes.slice(0, length));
    guest.refuses([...bytes, 0]);
  }
  guest.refuses([ControlClass.NOTF_COAL, 4, ...le(4, 1, 1)]);
  const { ack, result } = guest.command(coalescingOf(0), 7);
  assert.equal([ack, result.length], [ControlAck.ERR, 0], 'no room for the answer');
  assert.equal(values()[0], [1, 2], 'refusals change nothing');
  restart(guest);
  assert.equal(values(), new Array(2 * PAIRS).fill([0, 0]), 'spec-E3: nothing is left of it');
});

const packets = (count: number): Uint8Array[] => Array.from({ length: count }, () => new Uint8Array(60));
/** How often the guest was called since the last look. */
const calls = (guest: CommandedGuest): number => {
  const before = callsSeen.get(guest) ?? 0;
  const { callsSent } = guest.hand.statistics(0);
  callsSeen.set(guest, callsSent);
  return callsSent - before;
};
const callsSeen = new WeakMap<CommandedGuest, number>();

test('a guest is called when so many packets are there, or when the first of them has waited so long', () => {
  using guest = new CommandedGuest();
  guest.receive(packets(3));
  assert.is(calls(guest), 1, 'at once at first');
  guest.set(coalesce(NotfCoalCommand.RX_SET, 8, 0xffff_ffff));
  for (const [count, expected] of [
    [3, 0],
    [4, 0],
    [1, 1],
    [7, 0],
    [9, 1],
    [7, 0],
  ] as const) {
    guest.receive(packets(count));
    assert.is(calls(guest), expected, `${count} more`);
  }
  guest.set(coalesce(NotfCoalCommand.RX_SET, 1000, 20_000));
  guest.hand.poll(1);
  const start = performance.now();
  let waited = 0;
  for (; waited === 0 && performance.now() - start < 5000; guest.hand.poll(1)) waited = calls(guest);
  assert.is(waited, 1, 'after the time');
  guest.receive(packets(2));
  assert.is(calls(guest), 0);
  const again = performance.now();
  while (calls(guest) === 0 && performance.now() - again < 5000) guest.hand.poll(1);
  assert.ok(performance.now() - again >= 10, 'not at once');
  guest.set(coalesce(NotfCoalCommand.RX_SET, 1000, 0));
  guest.receive(packets(1));
  assert.is(calls(guest), 1, 'no time to wait: at once');
});

test('a call that waits is made when the ring stops, and none comes after', () => {
  using guest = new CommandedGuest();
  guest.set(coalesce(NotfCoalCommand.RX_SET, 1000, 1_000_000));
  native.drainEventFd(guest.hand.callFd);
  guest.receive(packets(2));
  assert.is(native.drainEventFd(guest.hand.callFd), 0n);
  guest.hand.device.stopRing(0);
  assert.is(native.drainEventFd(guest.hand.callFd), 1n);
  guest.hand.poll(600);
  assert.is(native.drainEventFd(guest.hand.callFd), 0n);
});

test('without the features nothing is held back', () => {
  const features = COMMAND_FEATURES.without(Feature.NOTF_COAL, Feature.VQ_NOTF_COAL);
  using guest = new CommandedGuest(features);
  guest.refuses(coalesce(NotfCoalCommand.RX_SET, 8, 100));
  guest.refuses(coalesceQueue(0, 8, 100));
  guest.refuses(coalescingOf(0));
  guest.receive(packets(1));
  assert.is(calls(guest), 1);
});

test('virtio 1.4: the statistics there are, of each queue', () => {
  using guest = new CommandedGuest();
  const all = virtioNetStatsCapabilities.read(view(guest.set(statsQuery)));
  assert.is(all.supported_stats_types, RX | TX | CVQ);
  guest.receive(packets(5));
  guest.refuses([ControlClass.STATS, 7]);
  const answer = view(guest.set(stats([0, RX], [1, TX], [CONTROL, CVQ], [2, RX])));
  const first = virtioNetStatsRxBasic.read(answer);
  assert.equal(
    [first.type, first.vq_index, first.size, first.rx_packets, first.rx_bytes, first.rx_drops],
    [NetStatsType.RX_BASIC, 0, virtioNetStatsRxBasic.bytes, 5n, 300n, 0n],
  );
  const second = virtioNetStatsTxBasic.read(answer, virtioNetStatsRxBasic.bytes);
  assert.equal([second.type, second.vq_index, second.tx_packets], [NetStatsType.TX_BASIC, 1, 0n]);
  const third = virtioNetStatsCvq.read(answer, virtioNetStatsRxBasic.bytes + virtioNetStatsTxBasic.bytes);
  assert.equal([third.type, third.vq_index, third.command_num, third.ok_num], [NetStatsType.CVQ, CONTROL, 2n, 1n]);
  assert.is(answer.byteLength, 3 * virtioNetStatsRxBasic.bytes + virtioNetStatsCvq.bytes);
});

test('statistics that are not there, or that there is no room for, are refused', () => {
  using guest = new CommandedGuest();
  for (const [queue, types] of [
    [0, TX],
    [0, RX | TX],
    [0, 0n],
    [0, 2n],
    [1, RX],
    [CONTROL, RX],
    [CONTROL + 1, CVQ],
    [0xffff, RX],
    [0, 2n ** 64n - 1n],
  ] as const) {
    guest.refuses(stats([queue, types]), `${types} of ${queue}`);
    guest.refuses(stats([0, RX], [queue, types]), `${types} of ${queue}, behind a good one`);
  }
  guest.refuses(stats());
  const good = stats([0, RX]);
  for (let length = 2; length < good.length; length++) guest.refuses(good.slice(0, length));
  guest.refuses([...statsQuery, 0]);
  for (const room of [0, 1, 55]) assert.is(guest.command(good, room).ack, ControlAck.ERR, `room for ${room}`);
  assert.is(guest.command(good, 56).ack, ControlAck.OK);
});

test('abuse: a queue is asked for once', () => {
  using guest = new CommandedGuest();
  guest.refuses(stats([0, RX], [1, TX], [0, RX]), 'the same queue twice');
  guest.refuses(stats(...new Array(73).fill([0, RX])), '73 times, which an answer has room for');
  assert.is(guest.set(stats([0, RX], [1, TX], [2, RX])).length, 3 * virtioNetStatsRxBasic.bytes);
});

test('virtio 1.2 §5.1.2: without MQ and RSS the control queue is number 2', () => {
  using guest = new CommandedGuest(COMMAND_FEATURES.without(Feature.MQ, Feature.RSS));
  const answer = view(guest.set(stats([0, RX], [2, CVQ])));
  const { type, vq_index } = virtioNetStatsCvq.read(answer, virtioNetStatsRxBasic.bytes);
  assert.equal([type, vq_index], [NetStatsType.CVQ, 2]);
  guest.refuses(stats([2, RX]));
  guest.refuses(stats([CONTROL, CVQ]));
});

test.run();
