/** testpmd's software devices on an lcore: what net_null, net_ring and net_pcap receive, send and count. */

import { join } from 'node:path';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { DeviceArguments } from '../../driver/cli/testpmd/devices/device-arguments.js';
import { NullDevice } from '../../driver/cli/testpmd/devices/null-device.js';
import { attachPort as attachNull } from '../../driver/cli/testpmd/devices/null-lcore.js';
import { PcapDevice } from '../../driver/cli/testpmd/devices/pcap-device.js';
import { attachPort as attachPcap } from '../../driver/cli/testpmd/devices/pcap-lcore.js';
import { RingDevice } from '../../driver/cli/testpmd/devices/ring-device.js';
import { attachPort as attachRing } from '../../driver/cli/testpmd/devices/ring-lcore.js';
import { ErrorCode, VirtioError } from '../../driver/errors.js';
import { Burst } from '../../driver/memory/burst.js';
import { createPool } from '../../driver/net/create-pool.js';
import { PcapReader } from '../../driver/pcap/pcap-reader.js';
import { PcapWriter } from '../../driver/pcap/pcap-writer.js';
import { toHex } from '../support/forward-engine.js';
import { modePackets } from '../support/mode-packets.js';
import { withFolder } from '../support/temp-folder.js';

const test = suite('testpmd devices');

const QUEUE_0 = { rx: [0], tx: [0] };

function stand(size = 2048) {
  const pool = createPool({ size, bufferBytes: 2176, pages: '4K' });
  const handlers = new Map<string, (payload: never) => unknown>();
  const context = {
    pool,
    onRequest: (type: string, handler: (payload: never) => unknown) => void handlers.set(type, handler),
    emit: () => undefined,
  };
  /** The control side's way to this lcore. */
  const link = {
    lcore: 1,
    request: async <T>(type: string, payload?: unknown): Promise<T> => handlers.get(type)!(payload as never) as T,
  };
  return { pool, context, link, burst: new Burst(pool, 32) };
}

const codeOf = (action: () => unknown): string | undefined => {
  try {
    action();
  } catch (error) {
    return error instanceof VirtioError ? error.code : String(error);
  }
  return undefined;
};

test('arguments are keys that the device knows, each with a value', () => {
  const given = DeviceArguments.parse('a=1,b=0x10,a=x=y', ['a', 'b']);
  assert.equal(given.all('a'), ['1', 'x=y']);
  assert.is(given.number('b', 7), 16);
  assert.is(given.number('c', 7), 7);
  for (const text of ['c=1', 'a', '=', 'a=1,,c']) {
    assert.is(
      codeOf(() => DeviceArguments.parse(text, ['a', 'b'])),
      ErrorCode.INVALID_ARGUMENT,
      text,
    );
  }
  assert.is(
    codeOf(() => given.number('a', 7)),
    ErrorCode.INVALID_ARGUMENT,
  );
});

test('net_null fills bursts with packets of its size, frees what is sent, and counts packets, not bytes', () => {
  const { pool, context, burst } = stand();
  const device = new NullDevice('net_null0', 'size=100', pool.dataBytes);
  const port = attachNull(context, device.lcoreData(QUEUE_0));
  assert.is(port.rxQueue(0).receive(burst), 32);
  assert.is(burst.bytesTotal, 3200);
  assert.is(port.txQueue(0).send(burst), 32);
  assert.is(pool.available, pool.size);
  const { rxPackets, rxBytes, txPackets, txBytes } = device.statistics();
  assert.equal([rxPackets, rxBytes, txPackets, txBytes], [32, 0, 32, 0]);
  device.resetStatistics();
  assert.is(device.statistics().rxPackets, 0);
  pool.memory.close();
});

test('net_null receives nothing with no-rx=1, or where the pool has no whole burst; size has to fit', () => {
  const { pool, context, burst } = stand(16);
  for (const devargs of ['no-rx=1', '']) {
    const device = new NullDevice('net_null0', devargs, pool.dataBytes);
    assert.is(attachNull(context, device.lcoreData(QUEUE_0)).rxQueue(0).receive(burst), 0, devargs);
  }
  for (const devargs of ['size=9000', 'no-rx=2', 'size=x']) {
    assert.is(
      codeOf(() => new NullDevice('net_null0', devargs, pool.dataBytes)),
      ErrorCode.INVALID_ARGUMENT,
      devargs,
    );
  }
  pool.memory.close();
});

test('net_ring gives back what was sent, in order, and takes 1023 packets; those are freed when it closes', async () => {
  const { pool, context, burst } = stand();
  const device = new RingDevice('net_ring0', '', pool);
  const port = attachRing(context, device.lcoreData(QUEUE_0));
  let sent = 0;
  for (let round = 0; round < 40; round++) {
    burst.allocate(32);
    sent += port.txQueue(0).send(burst);
    burst.free();
  }
  assert.is(sent, 1023);
  assert.is(port.rxQueue(0).receive(burst), 32);
  burst.free();
  assert.is(device.statistics().txPackets, 1023);
  await device.close();
  assert.is(pool.available, pool.size);
  pool.memory.close();
});

test('net_pcap receives a file once, goes on where it was on another lcore, and begins anew after a stop', async () => {
  await withFolder(async (folder) => {
    const { pool, context, link, burst } = stand();
    const input = join(folder, 'in.pcap');
    const writer = PcapWriter.create(input);
    for (const packet of modePackets) writer.write(packet, 0n);
    writer.close();
    const device = new PcapDevice('net_pcap0', `rx_pcap=${input}`);
    await device.start();
    const small = new Burst(pool, 4);
    const one = attachPcap(context, device.lcoreData(QUEUE_0));
    assert.is(one.rxQueue(0).receive(small), 4);
    await device.detaching(link);
    one.close();
    const other = attachPcap(context, device.lcoreData(QUEUE_0));
    assert.is(other.rxQueue(0).receive(burst), modePackets.length - 4);
    assert.is(toHex(burst.bytes(0).copyPacket()), toHex(modePackets[4]!));
    small.free();
    burst.free();
    assert.is(other.rxQueue(0).receive(burst), 0);
    const bytes = modePackets.reduce((sum, { length }) => sum + length, 0);
    assert.equal([device.statistics().rxPackets, device.statistics().rxBytes], [modePackets.length, bytes]);
    await device.detaching(link);
    other.close();
    await device.stop();
    await device.start();
    assert.is(attachPcap(context, device.lcoreData(QUEUE_0)).rxQueue(0).receive(burst), modePackets.length);
    assert.is(attachPcap(context, device.lcoreData(QUEUE_0)).txQueue(0).send(burst), modePackets.length, 'and drops');
    assert.is(pool.available, pool.size);
    pool.memory.close();
  });
});

test('net_pcap with infinite_rx begins again and again', async () => {
  await withFolder((folder) => {
    const { pool, context, burst } = stand();
    const input = join(folder, 'in.pcap');
    const writer = PcapWriter.create(input);
    for (const packet of modePackets.slice(0, 5)) writer.write(packet, 0n);
    writer.close();
    const device = new PcapDevice('net_pcap0', `rx_pcap=${input},infinite_rx=1`);
    const port = attachPcap(context, device.lcoreData(QUEUE_0));
    assert.is(port.rxQueue(0).receive(burst), 32);
    assert.is(toHex(burst.bytes(31).copyPacket()), toHex(modePackets[1]!));
    burst.free();
    port.close();
    pool.memory.close();
  });
});

test('net_pcap with infinite_rx leaves out what is shorter than an Ethernet header, as without it', async () => {
  await withFolder((folder) => {
    const { pool, context, burst } = stand();
    const input = join(folder, 'in.pcap');
    const writer = PcapWriter.create(input);
    for (const packet of [new Uint8Array(), new Uint8Array(13), modePackets[0]!]) writer.write(packet, 0n);
    writer.close();
    const port = attachPcap(context, new PcapDevice('net_pcap0', `rx_pcap=${input},infinite_rx=1`).lcoreData(QUEUE_0));
    assert.is(port.rxQueue(0).receive(burst), 32);
    assert.is(burst.bytesTotal, 32 * modePackets[0]!.length);
    burst.free();
    port.close();
    pool.memory.close();
  });
});

test('net_pcap writes what is sent as it is sent, goes on in the file on another lcore, and empties it at a restart', async () => {
  await withFolder(async (folder) => {
    const { pool, context, burst } = stand();
    const output = join(folder, 'out.pcap');
    const device = new PcapDevice('net_pcap0', `tx_pcap=${output}`);
    await device.start();
    const written = (): number => {
      using reader = PcapReader.open(output);
      return Array.from(reader).length;
    };
    for (let round = 1; round <= 2; round++) {
      const port = attachPcap(context, device.lcoreData(QUEUE_0));
      burst.allocate(2);
      burst.bytes(0).fill(modePackets[0]!);
      burst.bytes(1).fill(modePackets[1]!);
      assert.is(port.txQueue(0).send(burst), 2);
      assert.is(written(), 2 * round);
      port.close();
    }
    await device.stop();
    assert.is(written(), 4, 'a stop leaves it');
    await device.start();
    assert.is(written(), 0);
    pool.memory.close();
  });
});

test('net_pcap refuses interfaces, files that are not there, and nothing at all', () => {
  assert.is(
    codeOf(() => new PcapDevice('net_pcap0', 'iface=eth0')),
    ErrorCode.UNSUPPORTED,
  );
  assert.is(
    codeOf(() => new PcapDevice('net_pcap0', 'rx_pcap=/nowhere.pcap')),
    ErrorCode.NOT_FOUND,
  );
  assert.is(
    codeOf(() => new PcapDevice('net_pcap0', '')),
    ErrorCode.INVALID_ARGUMENT,
  );
});

test.run();
