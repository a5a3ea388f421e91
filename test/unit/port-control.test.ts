/**
 * What a port asks of its device, with our own back-end: what comes back is what was asked for (virtio 1.2 §5.1.6.5;
 * spec-D40 to spec-D42).
 */

import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { DeviceThread } from '../../driver/backend/device-thread.js';
import { EmulatedPciFunction } from '../../driver/backend/emulated-pci-function.js';
import { NetDevice, type NetDeviceOptions } from '../../driver/backend/net-device.js';
import { echoPort } from '../../driver/backend/ports/built-in.js';
import { ErrorCode } from '../../driver/errors.js';
import type { RssSettings } from '../../driver/net/control-requests.js';
import { Port } from '../../driver/net/port.js';
import { PortControl } from '../../driver/net/port-control.js';
import type { PortOptions } from '../../driver/net/port-options.js';
import { ControlAck, VlanCommand } from '../../driver/spec/control.js';
import { Feature, FeatureSet } from '../../driver/spec/features.js';
import { HashType } from '../../driver/spec/net-config.js';
import { PciModernTransport } from '../../driver/transport/pci-modern.js';
import { refusal } from '../support/driver-abuse.js';
import { address4, HASH_KEY, ipv4, referenceHash, tagged, tcp } from '../support/flow-packets.js';
import { exchange, packetTo } from '../support/packet-exchange.js';

const test = suite('port control');
const PAIRS = 2;
const OWN = Uint8Array.of(2, 0, 0, 0, 0, 1);
const OTHER = Uint8Array.of(2, 0, 0, 0, 0, 9);
const GROUP = Uint8Array.of(1, 0, 0x5e, 0, 0, 9);
const TYPES = HashType.IPv4 | HashType.TCPv4;

/** A port over a device that sends everything back. */
class Loop implements AsyncDisposable {
  readonly port: Port;
  readonly #fn: EmulatedPciFunction;

  private constructor(port: Port, fn: EmulatedPciFunction) {
    this.port = port;
    this.#fn = fn;
  }

  static async open(options: PortOptions = {}, device: Partial<NetDeviceOptions> = {}): Promise<Loop> {
    const thread = await DeviceThread.start();
    const made = new NetDevice(thread, { port: echoPort(), queuePairs: PAIRS, ...device });
    await made.ready();
    const fn = new EmulatedPciFunction(made);
    const released: AsyncDisposable = { [Symbol.asyncDispose]: () => fn.closed };
    const resources = [released, made, thread];
    const port = new Port(PciModernTransport.open(fn), {
      queues: PAIRS,
      ringSize: 64,
      pages: '4K',
      resources,
      ...options,
    });
    await port.start();
    return new Loop(port, fn);
  }

  get control(): PortControl {
    return this.port.control;
  }

  /** Sends packets, then one to everybody; returns the queue that each of the former comes back in. */
  exchange(packets: readonly Uint8Array[]): Promise<(number | undefined)[]> {
    return exchange(this.port, PAIRS, packets);
  }

  async comesBack(to: Uint8Array): Promise<boolean> {
    const [queue] = await this.exchange([packetTo(to)]);
    return queue !== undefined;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.port.close();
    assert.equal(this.#fn.violations, []);
  }
}

test('receive modes and addresses, also after a stop and a start', async () => {
  await using loop = await Loop.open();
  const { control, port } = loop;
  assert.ok(await loop.comesBack(OTHER), 'everything before anything was said');
  await control.setPromiscuous(false);
  assert.not(await loop.comesBack(OTHER));
  await control.setPromiscuous(true);
  assert.ok(await loop.comesBack(OTHER));
  await control.setPromiscuous(false);
  await control.addMacAddress(OTHER);
  await control.addMacAddress(GROUP);
  assert.ok((await loop.comesBack(OTHER)) && (await loop.comesBack(GROUP)));
  await control.removeMacAddress(OTHER);
  assert.not(await loop.comesBack(OTHER));
  assert.equal(control.macAddresses, [GROUP]);
  await port.stop();
  await port.start();
  assert.not(await loop.comesBack(OTHER), 'the mode and the table are what they were');
  assert.ok(await loop.comesBack(GROUP));
  await control.removeMacAddress(GROUP);
  await control.setAllMulticast(true);
  assert.ok(control.allMulticast && (await loop.comesBack(GROUP)));
  await control.setReceiveMode('noMulticast', true);
  assert.not(await loop.comesBack(GROUP));
  await control.setReceiveMode('noMulticast', false);
  await control.setReceiveMode('allUnicast', true);
  assert.ok(await loop.comesBack(OTHER));
  await control.setReceiveMode('noUnicast', true);
  assert.not(await loop.comesBack(OWN));
});

test('another address: the port has it, and the device takes its packets, until the port is closed', async () => {
  await using loop = await Loop.open();
  const { control, port } = loop;
  assert.equal([...port.macAddress!], [...OWN]);
  await control.setPromiscuous(false);
  await control.setMacAddress(OTHER);
  for (let round = 0; round < 2; round++) {
    assert.equal([...port.macAddress!], [...OTHER]);
    assert.ok(await loop.comesBack(OTHER));
    assert.not(await loop.comesBack(OWN));
    await port.stop();
    await port.start();
  }
});

test('more addresses than a command has room for: all packets come, until there are fewer', async () => {
  await using loop = await Loop.open();
  const { control } = loop;
  const address = (number: number, first: number): Uint8Array =>
    Uint8Array.of(first, 7, 0, 0, number >>> 8, number & 0xff);
  await control.setPromiscuous(false);
  const count = 682;
  for (let number = 0; number < count; number++) await control.addMacAddress(address(number, 3));
  assert.ok(control.passesMoreAddresses && (await loop.comesBack(GROUP)));
  assert.not(await loop.comesBack(OTHER), 'the groups alone are too many');
  await control.addMacAddress(OTHER);
  assert.ok(await loop.comesBack(OWN));
  assert.ok(await loop.comesBack(Uint8Array.of(2, 0, 0, 0, 0, 0x33)), 'promiscuous now');
  assert.not(control.promiscuous, 'nobody asked for that');
  for (const left of [OTHER, address(0, 3), address(1, 3)]) await control.removeMacAddress(left);
  assert.not(control.passesMoreAddresses);
  assert.not(await loop.comesBack(Uint8Array.of(2, 0, 0, 0, 0, 0x33)));
});

test('VLANs that are turned on, where the port was opened for that', async () => {
  await using loop = await Loop.open({ vlanFilter: true });
  const { control, port } = loop;
  const packet = (identifier: number): Uint8Array => tagged(packetTo(OWN), 0x8100, identifier);
  await control.setVlan(5, true);
  await control.setVlan(4095, true);
  for (let round = 0; round < 2; round++) {
    assert.equal(await loop.exchange([packet(5), packet(6), packet(4095)]), [0, undefined, 0]);
    assert.equal(control.vlans, [5, 4095]);
    await port.stop();
    await port.start();
  }
  await control.setVlan(5, false);
  assert.equal(await loop.exchange([packet(5), packet(4095)]), [undefined, 0]);
  await refusal(control.setVlan(4096, true), ErrorCode.INVALID_ARGUMENT);
});

test('spec-D40: RSS, each flow where its hash says, and the limits that are kept to', async () => {
  await using loop = await Loop.open();
  const { control, port } = loop;
  const limits = await control.rssLimits();
  assert.ok(limits.maxKeyBytes >= 40 && limits.maxTableEntries >= 128 && (limits.hashTypes & TYPES) === TYPES);
  const [from, to] = [address4('10.0.0.1'), address4('10.0.0.2')];
  const packets = Array.from({ length: 16 }, (_, number) => ipv4(from, to, tcp(number, 80)));
  const expected = (table: readonly number[]): number[] =>
    packets.map(
      (_, number) => table[referenceHash(HASH_KEY, [...from, ...to, 0, number, 0, 80]) & (table.length - 1)]!,
    );
  for (const table of [[1], [0, 1], Array.from({ length: 128 }, (_, entry) => (entry >>> 3) & 1)]) {
    await control.setRss({ key: HASH_KEY, hashTypes: TYPES, table });
    assert.equal(await loop.exchange(packets), expected(table), `${table.length} entries`);
  }
  await port.stop();
  await port.start();
  assert.equal(await loop.exchange(packets), expected(control.rss!.table), 'after a stop and a start');
  const good: RssSettings = { key: HASH_KEY, hashTypes: TYPES, table: [0, 1] };
  for (const bad of [
    { ...good, key: new Uint8Array(limits.maxKeyBytes + 1) },
    { ...good, table: [0, 1, 0] },
    { ...good, table: [] },
    { ...good, table: new Array(2 * limits.maxTableEntries).fill(0) },
    { ...good, table: [0, PAIRS] },
    { ...good, table: [0, -1] },
    { ...good, unclassifiedQueue: PAIRS },
    { ...good, hashTypes: 0x8000_0000 },
    { ...good, hashTypes: 0.5 },
  ]) {
    await refusal(control.setRss(bad), ErrorCode.INVALID_ARGUMENT);
  }
  assert.equal(await loop.exchange(packets), expected(control.rss!.table), 'what is refused changes nothing');
});

test('coalescing of all queues and of one, kept over a start', async () => {
  await using loop = await Loop.open();
  const { control, port } = loop;
  const [few, many] = [
    { maxPackets: 3, maxMicroseconds: 50 },
    { maxPackets: 0xffff_ffff, maxMicroseconds: 4 },
  ];
  await control.setCoalescing({ direction: 'rx', pair: 1 }, many);
  await control.setCoalescing({ direction: 'rx' }, few);
  assert.equal(await control.coalescing('rx', 1), few, 'of all queues, the one that was said before included');
  await control.setCoalescing({ direction: 'tx', pair: 0 }, many);
  for (let round = 0; round < 2; round++) {
    assert.equal(await control.coalescing('rx', 0), few);
    assert.equal(await control.coalescing('tx', 0), many);
    assert.equal(await control.coalescing('tx', 1), { maxPackets: 0, maxMicroseconds: 0 });
    await port.stop();
    await port.start();
  }
  await refusal(control.setCoalescing({ direction: 'rx', pair: PAIRS }, few), ErrorCode.INVALID_ARGUMENT);
  await refusal(
    control.setCoalescing({ direction: 'rx' }, { maxPackets: -1, maxMicroseconds: 0 }),
    ErrorCode.INVALID_ARGUMENT,
  );
});

test('spec-D42: no offload that was not accepted', async () => {
  await using loop = await Loop.open();
  const { control } = loop;
  await control.setGuestOffloads([]);
  await refusal(control.setGuestOffloads([Feature.GUEST_TSO4]), ErrorCode.UNSUPPORTED, /GUEST_TSO4/);
  await refusal(control.setGuestOffloads([Feature.MRG_RXBUF]), ErrorCode.INVALID_ARGUMENT, /MRG_RXBUF/);
});

test('spec-D41: without the feature a call says which, and why it is not there; nothing is sent', async () => {
  const calls: readonly (readonly [Feature, (control: PortControl) => Promise<unknown>])[] = [
    [Feature.CTRL_RX, (control) => control.setPromiscuous(true)],
    [Feature.CTRL_RX, (control) => control.setAllMulticast(true)],
    [Feature.CTRL_RX, (control) => control.addMacAddress(OTHER)],
    [Feature.CTRL_RX_EXTRA, (control) => control.setReceiveMode('noBroadcast', true)],
    [Feature.CTRL_MAC_ADDR, (control) => control.setMacAddress(OTHER)],
    [Feature.RSS, (control) => control.setRss({ key: HASH_KEY, hashTypes: TYPES, table: [0] })],
    [Feature.RSS, (control) => control.rssLimits()],
    [Feature.HASH_REPORT, (control) => control.setHashReports({ key: HASH_KEY, hashTypes: TYPES })],
    [Feature.CTRL_GUEST_OFFLOADS, (control) => control.setGuestOffloads([])],
    [Feature.NOTF_COAL, (control) => control.setCoalescing({ direction: 'rx' }, { maxPackets: 1, maxMicroseconds: 1 })],
    [Feature.VQ_NOTF_COAL, (control) => control.coalescing('rx', 0)],
    [Feature.DEVICE_STATS, (control) => control.deviceStatistics()],
  ];
  await using loop = await Loop.open({}, { without: calls.map(([feature]) => feature) });
  for (const [feature, call] of calls) {
    const [name] = Object.entries(Feature).find(([, number]) => number === feature)!;
    await refusal(call(loop.control), ErrorCode.UNSUPPORTED, new RegExp(`${name}.*nobody offers it`));
  }
  // Offered, and not asked for by this port.
  await refusal(
    loop.control.setVlan(5, true),
    ErrorCode.UNSUPPORTED,
    /CTRL_VLAN: offered by the device, and this driver has no use/,
  );
  assert.equal([loop.control.promiscuous, loop.control.macAddresses, loop.control.vlans], [false, [], []]);
});

test('a port that is not started says so, and addresses that are none are refused', async () => {
  await using loop = await Loop.open();
  const { control, port } = loop;
  for (const address of [new Uint8Array(6), new Uint8Array(5).fill(2), new Uint8Array(7).fill(2)]) {
    await refusal(control.addMacAddress(address), ErrorCode.INVALID_ARGUMENT);
    await refusal(control.setMacAddress(address), ErrorCode.INVALID_ARGUMENT);
  }
  await refusal(control.setMacAddress(GROUP), ErrorCode.INVALID_ARGUMENT);
  await port.stop();
  await refusal(control.setPromiscuous(true), ErrorCode.WRONG_STATE);
  await refusal(control.rssLimits(), ErrorCode.WRONG_STATE);
  await port.start();
  assert.not(control.promiscuous, 'what failed is not made up for');
});

test('threads that come up while settings are made again get the queues once', async () => {
  await using loop = await Loop.open();
  const { control, port } = loop;
  await control.setPromiscuous(false);
  await control.setAllMulticast(true);
  await port.stop();
  let isStarted = false;
  const starting = port.start().then(() => {
    isStarted = true;
  });
  // As `launch` does: the port as it is, and what becomes of it.
  const got: number[] = [];
  const nothing = async (): Promise<void> => undefined;
  while (!isStarted) {
    const number = got.push(port.handle().session === undefined ? 0 : 1) - 1;
    port.addRemote({
      quiesce: nothing,
      release: nothing,
      leave: nothing,
      stopQueue: nothing,
      reclaimQueue: nothing,
      startQueue: nothing,
      resume: async () => {
        got[number]! += 1;
      },
    });
    await new Promise((resolve) => setImmediate(resolve));
  }
  await starting;
  assert.ok(got.length > 1);
  assert.equal(
    got.filter((count) => count !== 1),
    [],
  );
});

test('groups are replaced as a whole, and addresses of stations stay', async () => {
  await using loop = await Loop.open();
  const { control } = loop;
  const group = (last: number): Uint8Array => Uint8Array.of(1, 0, 0x5e, 0, 0, last);
  await control.setPromiscuous(false);
  await control.addMacAddress(OTHER);
  await control.setMulticastAddresses([group(1), group(2)]);
  assert.ok(await loop.comesBack(group(2)));
  await control.setMulticastAddresses([group(1), GROUP]);
  assert.equal([await loop.comesBack(group(1)), await loop.comesBack(group(2))], [true, false]);
  assert.ok(await loop.comesBack(OTHER));
  assert.equal(control.multicastAddresses, [group(1), GROUP]);
  assert.equal(control.macAddresses, [OTHER, group(1), GROUP]);
  await refusal(control.setMulticastAddresses([OTHER]), ErrorCode.INVALID_ARGUMENT);
});

/** Settings of a device that is a set of VLANs; it refuses a command that it does not take. */
const vlanControl = (passed: Set<number>, takes: () => boolean = () => true): PortControl =>
  new PortControl({
    address: 'a set',
    queuePairs: 1,
    maxPairs: 1,
    live: { features: FeatureSet.of(Feature.CTRL_VQ, Feature.CTRL_VLAN), outcomes: [] },
    setMacAddress: () => undefined,
    readConfig: async (_offset, bytes) => new Uint8Array(bytes),
    command: async (_class, command, data) => {
      if (!takes()) return { ack: ControlAck.ERR, result: new Uint8Array(0) };
      const identifier = data[0]! | (data[1]! << 8);
      if (command === VlanCommand.ADD) passed.add(identifier);
      else passed.delete(identifier);
      return { ack: ControlAck.OK, result: new Uint8Array(0) };
    },
    inTurn: (work) => work(),
  });

test('a VLAN filter that is turned half-way can be turned either way, and is on when no other VLAN passes', async () => {
  const passed = new Set<number>();
  let left = Number.POSITIVE_INFINITY;
  const control = vlanControl(passed, () => left-- > 0);
  const halfWay = async (isOn: boolean): Promise<void> => {
    left = 100;
    await refusal(control.setVlanFilter(isOn), ErrorCode.REQUEST_REFUSED);
    left = Number.POSITIVE_INFINITY;
    assert.not(control.vlanFilter);
  };
  await control.setVlan(5, true);
  await halfWay(false);
  await control.setVlanFilter(true);
  assert.ok(control.vlanFilter);
  assert.equal([...passed], [5], 'back');
  await halfWay(false);
  await control.setVlanFilter(false);
  assert.is(passed.size, 4096, 'on');
  await halfWay(true);
  await control.setVlan(9, true);
  await control.setVlanFilter(true);
  assert.equal([...passed].sort(), [5, 9], 'a VLAN that is turned on meanwhile');
  await halfWay(false);
  passed.clear();
  await control.restore();
  assert.ok(control.vlanFilter, 'what failed is not made again');
  assert.equal([...passed].sort(), [5, 9]);
});

test('the VLAN filter off and on again, over a start, with VLANs that change meanwhile', async () => {
  const passed = new Set<number>();
  const control = vlanControl(passed);
  const restart = async (): Promise<void> => {
    passed.clear();
    await control.restore();
  };
  await control.setVlan(5, true);
  await control.setVlan(6, true);
  await control.setVlanFilter(false);
  assert.not(control.vlanFilter);
  assert.is(passed.size, 4096);
  await control.setVlan(6, false);
  await control.setVlan(7, true);
  assert.is(passed.size, 4096);
  await restart();
  assert.is(passed.size, 4096);
  await control.setVlanFilter(true);
  assert.equal([...passed].sort(), [5, 7]);
  await restart();
  assert.equal([...passed], [5, 7]);
  assert.equal(control.vlans, [5, 7]);
  control.forget('vlans');
  await restart();
  assert.is(passed.size, 0);
});

test('what a port and its device can do', async () => {
  await using loop = await Loop.open({}, { mtu: 2000 });
  const { maxMacAddresses, rss, ...others } = await loop.port.info();
  assert.equal(others, {
    maxQueuePairs: PAIRS,
    ringSize: { min: 4, max: 32_768 },
    mtu: { min: 68, max: 2000 },
  });
  assert.equal(rss, await loop.control.rssLimits());
  // So many fit a table, and no more: see above.
  assert.is(maxMacAddresses, 681);
  await loop.port.stop();
  assert.is((await loop.port.info()).rss, undefined);
});

test("virtio 1.4, device statistics: what the device has counted, by the document's names", async () => {
  await using loop = await Loop.open();
  const packet = Uint8Array.from([...OWN, ...new Array(54).fill(0)]);
  await loop.exchange([packet, packet]);
  const { rx, tx, control } = await loop.control.deviceStatistics();
  assert.is(rx.length, PAIRS);
  // Two packets and the one to everybody, each a byte longer for its number.
  assert.equal([tx[0]!['tx_packets'], tx[0]!['tx_bytes'], tx[1]!['tx_packets']], [3n, 183n, 0n]);
  assert.equal([rx[0]!['rx_packets'], rx[0]!['rx_bytes'], rx[0]!['rx_drops']], [3n, 183n, 0n]);
  assert.equal(Object.keys(control), ['command_num', 'ok_num']);
  assert.ok(control['command_num']! > 0n);
});

test('hash reports: a command of their own, which ends RSS, kept over a start', async () => {
  const features = [Feature.HASH_REPORT];
  await using loop = await Loop.open({ demand: features });
  const { control, port } = loop;
  await control.setRss({ key: HASH_KEY, hashTypes: TYPES, table: [1] });
  await control.setHashReports({ key: HASH_KEY, hashTypes: TYPES });
  for (let round = 0; round < 2; round++) {
    assert.is(control.rss, undefined);
    assert.equal(control.hashReports, { key: HASH_KEY, hashTypes: TYPES });
    assert.equal(await loop.exchange([ipv4(address4('10.0.0.1'), address4('10.0.0.2'), tcp(1, 2))]), [0]);
    await port.stop();
    await port.start();
  }
  await refusal(control.setHashReports({ key: HASH_KEY, hashTypes: 0x8000_0000 }), ErrorCode.INVALID_ARGUMENT);
  await refusal(control.setHashReports({ key: new Uint8Array(256), hashTypes: TYPES }), ErrorCode.INVALID_ARGUMENT);
});

test.run();
