/** The pcap port: in and out at once, for ever or once, and what happens when a file fails it. */

import { spawnSync } from 'node:child_process';
import { mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { DeviceThread } from '../../driver/backend/device-thread.js';
import { EmulatedPciFunction } from '../../driver/backend/emulated-pci-function.js';
import { NetDevice } from '../../driver/backend/net-device.js';
import { pcapPort } from '../../driver/backend/ports/built-in.js';
import * as pcap from '../../driver/backend/ports/pcap.js';
import { ErrorCode, VirtioError } from '../../driver/errors.js';
import { Port } from '../../driver/net/port.js';
import { PcapReader } from '../../driver/pcap/pcap-reader.js';
import { PcapWriter } from '../../driver/pcap/pcap-writer.js';
import { PciModernTransport } from '../../driver/transport/pci-modern.js';
import { type HarnessOptions, PortHarness } from '../support/backend-port-harness.js';
import { pattern } from '../support/capture-files.js';
import { skipWithoutRoot } from '../support/skip.js';
import { withFolder } from '../support/temp-folder.js';

const test = suite('pcap port');
type Counted = ReturnType<typeof pcapPort>;

function writeCapture(path: string, packets: readonly Uint8Array[]): void {
  using writer = PcapWriter.create(path);
  for (const packet of packets) writer.write(packet, 1n);
}

function readCapture(path: string): Uint8Array[] {
  using reader = PcapReader.open(path);
  return [...reader].map(({ bytes }) => bytes);
}

function withPort(
  options: Parameters<typeof pcapPort>[0],
  body: (harness: PortHarness, spec: Counted) => void,
  harnessOptions?: HarnessOptions,
): void {
  const spec = pcapPort(options);
  const harness = new PortHarness(pcap, spec.options, harnessOptions);
  try {
    body(harness, spec);
  } finally {
    harness.close();
  }
}

/** Everything that a port sends in `turns` turns. */
const sentBy = (harness: PortHarness, turns: number, most = 64): Uint8Array[] =>
  Array.from({ length: turns }, () => harness.turn(0, most)).flat();

const packets = [14, 60, 64, 1514, 2100, 2101, 9018, 65_562].map((length, index) => pattern(length, index));

test('what is in one file goes to the guest, what the guest sends into the other, at once', () =>
  withFolder((folder) => {
    const [input, output] = [join(folder, 'in.pcap'), join(folder, 'out.pcap')];
    writeCapture(input, packets);
    withPort({ input, output }, (harness, spec) => {
      harness.give(packets.slice(0, 3));
      assert.equal(sentBy(harness, 4, 3), packets);
      harness.give(packets.slice(3), 0);
      const bytes = packets.reduce((sum, { length }) => sum + length, 0);
      const both = { sent: 8, sentBytes: bytes, received: 8, receivedBytes: bytes };
      assert.equal(spec.statistics(), { ...both, skipped: 0, notStored: 0 });
      assert.equal(harness.turn(), [], 'it ends');
      assert.equal(harness.reports, []);
    });
    assert.equal(readCapture(output), packets);
  }));

test('for ever, in the same order', () =>
  withFolder((folder) => {
    const input = join(folder, 'in.pcap');
    writeCapture(input, packets.slice(0, 5));
    withPort({ input, loop: true }, (harness) => {
      const sent = sentBy(harness, 100, 7);
      assert.is(sent.length, 700);
      for (const [index, packet] of sent.entries()) assert.equal(packet, packets[index % 5]);
    });
  }));

test('only pair 0 sends the input; all pairs are stored', () =>
  withFolder((folder) => {
    const [input, output] = [join(folder, 'in.pcap'), join(folder, 'out.pcap')];
    writeCapture(input, packets);
    const body = (harness: PortHarness): void => {
      assert.equal(harness.turn(1), []);
      harness.give([packets[0]!], 1);
      harness.give([packets[1]!], 0);
    };
    withPort({ input, output }, body, { queuePairs: 2 });
    assert.equal(readCapture(output), packets.slice(0, 2));
  }));

test('a file with nothing that can be sent ends, for ever or not', () =>
  withFolder((folder) => {
    for (const [name, content] of [
      ['empty', []],
      ['unfit', [pattern(13), pattern(65_563), pattern(0)]],
    ] as const) {
      const input = join(folder, `${name}.pcap`);
      writeCapture(input, content);
      for (const loop of [false, true]) {
        withPort({ input, loop }, (harness, spec) => {
          assert.equal(sentBy(harness, 3), []);
          assert.is(spec.statistics().skipped, content.length);
        });
      }
    }
  }));

test('a pool that has no buffers loses nothing', () =>
  withFolder((folder) => {
    const input = join(folder, 'in.pcap');
    writeCapture(input, packets);
    const body = (harness: PortHarness): void => {
      const taken = new Uint32Array(40);
      assert.ok(harness.pool.allocate(taken, 0, 36));
      const first = sentBy(harness, 3);
      assert.equal(first, packets.slice(0, first.length));
      assert.ok(first.length < packets.length, 'it has to wait');
      harness.pool.free(taken, 0, 36);
      assert.equal([...first, ...sentBy(harness, 3)], packets);
    };
    withPort({ input }, body, { poolSize: 40 });
  }));

test('damage in the input: what is before it is sent, and it is reported once', () =>
  withFolder((folder) => {
    const input = join(folder, 'in.pcap');
    writeCapture(input, packets.slice(0, 4));
    const bytes = readFileSync(input);
    for (const loop of [false, true]) {
      writeFileSync(input, bytes.subarray(0, bytes.length - 5));
      withPort({ input, loop }, (harness) => {
        assert.equal(sentBy(harness, 5), packets.slice(0, 3));
        assert.is(harness.reports.length, 1, harness.reports.join());
        assert.match(harness.reports[0]!, /sending .*in\.pcap has ended: BAD_FORMAT/);
      });
    }
  }));

test('an input that vanishes while it goes round', () =>
  withFolder((folder) => {
    const input = join(folder, 'in.pcap');
    writeCapture(input, packets.slice(0, 3));
    withPort({ input, loop: true }, (harness) => {
      assert.is(harness.turn(0, 5).length, 5);
      rmSync(input);
      assert.equal(sentBy(harness, 5), [packets[2]]);
      assert.match(harness.reports.join(), /sending .*in\.pcap has ended: NOT_FOUND/);
    });
  }));

test('what cannot be opened, and a device that is spread over threads, is refused; nothing stays open', () =>
  withFolder((folder) => {
    const input = join(folder, 'in.pcap');
    writeCapture(input, packets);
    const open = readdirSync('/proc/self/fd').length;
    const refusedAs = (options: Parameters<typeof pcapPort>[0], pairs?: readonly number[]): unknown => {
      try {
        new PortHarness(pcap, options, { queuePairs: 2, ...(pairs === undefined ? {} : { pairs }) }).close();
        return undefined;
      } catch (error) {
        return error instanceof VirtioError ? error.code : error;
      }
    };
    assert.is(refusedAs({ input: join(folder, 'none') }), ErrorCode.NOT_FOUND);
    assert.is(refusedAs({ input, output: join(folder, 'no', 'folder') }), ErrorCode.NOT_FOUND);
    assert.is(refusedAs({ input }, [0]), ErrorCode.UNSUPPORTED);
    assert.is(refusedAs({ input }, [0, 1]), undefined);
    assert.is(readdirSync('/proc/self/fd').length, open);
  }));

test('what was written is in the file after a while, though the port is still open', () =>
  withFolder((folder) => {
    const output = join(folder, 'out.pcap');
    withPort({ output }, (harness) => {
      harness.give([packets[0]!]);
      assert.equal(readCapture(output), []);
      for (let turn = 0; turn < 5000; turn++) harness.port.poll!();
      assert.equal(readCapture(output), [packets[0]]);
    });
  }));

test.run();

const rootTest = skipWithoutRoot(suite('pcap port, on a full disk'));

/** Calls `use` with a folder on a disk of 1200 KiB. */
function withSmallDisk(use: (disk: string) => void | Promise<void>): Promise<void> {
  return withFolder(async (folder) => {
    const disk = join(folder, 'disk');
    mkdirSync(disk);
    assert.is(spawnSync('mount', ['-t', 'tmpfs', '-o', 'size=1200k', 'none', disk]).status, 0, 'mount');
    try {
      await use(disk);
    } finally {
      spawnSync('umount', [disk]);
    }
  });
}

rootTest('it is reported once, the guest goes on, and what is stored is whole', () =>
  withSmallDisk((disk) => {
    const output = join(disk, 'out.pcap');
    const large = Array.from({ length: 32 }, (_, index) => pattern(2000, index));
    withPort({ output }, (harness, spec) => {
      for (let round = 0; round < 40; round++) harness.give(large);
      assert.is(harness.reports.length, 1, harness.reports.join());
      assert.match(harness.reports[0]!, /no longer stored: IO: .*no space left on the disk \(make room/);
      const { received, notStored } = spec.statistics();
      assert.is(received, 40 * 32);
      const stored = readCapture(output);
      assert.is(received - notStored, stored.length);
      assert.ok(stored.length > 200, `${stored.length} packets`);
      for (const [index, packet] of stored.entries()) assert.equal(packet, large[index % 32]);
    });
  }),
);

rootTest('the control plane gets it as an event; rings and other devices of the thread go on', () =>
  withSmallDisk(async (disk) => {
    const thread = await DeviceThread.start({ poolSize: 1024 });
    const device = new NetDevice(thread, { port: pcapPort({ output: join(disk, 'out.pcap') }) });
    const fn = new EmulatedPciFunction(device);
    const events: string[] = [];
    const toFunction = device.onEvent;
    device.onEvent = (event) => {
      events.push(event.type);
      toFunction?.(event);
    };
    const port = new Port(PciModernTransport.open(fn), { ringSize: 64, pages: '4K' });
    try {
      await port.start();
      const burst = port.burst(32);
      let sent = 0;
      for (const deadline = Date.now() + 20_000; sent < 3000; await delay(0)) {
        assert.ok(Date.now() < deadline, `${sent} packets`);
        if (burst.allocate(32) === 0) continue;
        for (let index = 0; index < 32; index++) burst.bytes(index).setLength(1500);
        sent += port.txQueue(0).send(burst);
        burst.free();
      }
      for (const deadline = Date.now() + 20_000; device.statistics(1).packets < sent; await delay(5)) {
        assert.ok(Date.now() < deadline, `${device.statistics(1).packets} of ${sent} packets`);
      }
      assert.equal(events, ['port-failed']);
      assert.equal(fn.failures, []);
    } finally {
      await port.close();
      await fn.closed;
      await device.close();
      await thread.stop();
    }
  }),
);

rootTest.run();
