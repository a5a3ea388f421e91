/** What fails on a forwarding lcore of testpmd costs what it must, and no more: forwarding can be stopped and started again. */

import { mkdirSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import type { EthernetDevice } from '../../driver/cli/testpmd/devices/ethernet-device.js';
import { NullDevice } from '../../driver/cli/testpmd/devices/null-device.js';
import { planForwarding } from '../../driver/cli/testpmd/forward-plan.js';
import { Forwarding } from '../../driver/cli/testpmd/forwarding.js';
import { StreamCounter } from '../../driver/cli/testpmd/lcore/stream.js';
import { BoundedPrint, UnshownText } from '../../driver/cli/testpmd/lcore/unshown-text.js';
import { createPool } from '../../driver/net/create-pool.js';
import { createPcapng } from '../../driver/pcap/pcapng-writer.js';
import { Break, type BreakingPortData } from '../support/breaking-port.js';
import { plainPort, plainSettings } from '../support/forward-engine.js';
import { withFolder } from '../support/temp-folder.js';

const test = suite('testpmd, failures on lcores');

const PATIENCE_MS = 10_000;
const CAPTURE = new URL('../../driver/cli/testpmd/lcore/capture-observer.js', import.meta.url);

class BreakingDevice extends NullDevice {
  override readonly lcoreModule = new URL('../support/breaking-port.js', import.meta.url);
  readonly word = new SharedArrayBuffer(4);

  override lcoreData(): never {
    return { word: this.word } satisfies BreakingPortData as never;
  }
  breakAt(place: number): void {
    Atomics.store(new Int32Array(this.word), 0, place);
  }
}

async function until(condition: () => boolean, what: string): Promise<void> {
  const end = performance.now() + PATIENCE_MS;
  while (!condition()) {
    if (performance.now() > end) assert.unreachable(`not within ${PATIENCE_MS} ms: ${what}`);
    await delay(5);
  }
}

/** Two ports, the second of which breaks, on two lcores: each sends what the other receives. */
async function withStand(
  body: (stand: {
    readonly forwarding: Forwarding;
    readonly breaking: BreakingDevice;
    readonly start: () => Promise<void>;
    /** Packets of the stream from a port, until there are more. */
    readonly moves: (port: number) => Promise<void>;
    readonly complaints: string[];
  }) => Promise<void>,
): Promise<void> {
  const pool = createPool({ size: 1024, bufferBytes: 2176, pages: '4K' });
  const complaints: string[] = [];
  const print = (text: string, isError: boolean): undefined => void (isError && complaints.push(text));
  const forwarding = new Forwarding({ pool, cpuOf: () => undefined, print });
  const breaking = new BreakingDevice('net_null1', '', pool.dataBytes);
  const devices = new Map<number, EthernetDevice>([
    [0, new NullDevice('net_null0', '', pool.dataBytes)],
    [1, breaking],
  ]);
  const plan = planForwarding({ forwardMode: 'io', topology: 'paired', rxQueues: 1, txQueues: 1 }, [0, 1], [1, 2]);
  const ports = new Map([...devices.keys()].map((id) => [id, plainPort]));
  const start = (): Promise<void> =>
    forwarding.start(plan, { ...plainSettings, ports }, { devices, flush: false, txFirst: 0 });
  const sent = (port: number): number =>
    forwarding.streams.find(({ setup }) => setup.rxPort === port)?.counters[StreamCounter.TX_PACKETS] ?? 0;
  const moves = async (port: number): Promise<void> => {
    const before = sent(port);
    await until(() => sent(port) > before + 100, `packets from port ${port}`);
  };
  try {
    await body({ forwarding, breaking, start, moves, complaints });
  } finally {
    await forwarding.close();
    pool.memory.close();
  }
}

test('an engine that throws drops its burst and says so once; the lcore goes on, and the engine where it can', () =>
  withStand(async ({ forwarding, breaking, start, moves, complaints }) => {
    await start();
    await moves(1);
    breaking.breakAt(Break.RECEIVE);
    const dropped = (): number =>
      forwarding.streams.find(({ setup }) => setup.rxPort === 1)!.counters[StreamCounter.FWD_DROPPED]!;
    await until(() => dropped() > 100, 'drops');
    breaking.breakAt(Break.NOT);
    await moves(1);
    await forwarding.stop();
    assert.is(complaints.length, 1);
    assert.match(complaints[0]!, /lcore 2: io dropped packets of port 1: Error: broken by a test/);
  }));

test('after an lcore has ended the others are stopped, and all are started anew', () =>
  withStand(async ({ forwarding, breaking, start, moves, complaints }) => {
    await start();
    await moves(0);
    breaking.breakAt(Break.TURN);
    await until(() => complaints.length > 0, 'the end of an lcore');
    await forwarding.stop();
    assert.not.ok(forwarding.isRunning);
    await forwarding.release(0);
    breaking.breakAt(Break.NOT);
    await start();
    await moves(0);
    await moves(1);
    await forwarding.stop();
  }));

test('forwarding whose lcore ends in the middle can be closed', () =>
  withStand(async ({ forwarding, breaking, start, complaints }) => {
    await start();
    breaking.breakAt(Break.TURN);
    await until(() => complaints.length > 0, 'the end of an lcore');
    await forwarding.close();
    assert.not.ok(forwarding.isRunning);
  }));

test('a start that failed because a port cannot be put on an lcore leaves nothing that keeps the next from it', () =>
  withStand(async ({ forwarding, breaking, start, moves }) => {
    breaking.breakAt(Break.ATTACH);
    for (let round = 0; round < 2; round++) {
      await start().then(
        () => assert.unreachable('it started'),
        (error: Error) => assert.match(error.message, /broken by a test/),
      );
      assert.not.ok(forwarding.isRunning);
    }
    breaking.breakAt(Break.NOT);
    await start();
    await moves(0);
    await moves(1);
    await forwarding.stop();
  }));

test('a capture whose file has gone when lcores start is a complaint, and forwarding starts', () =>
  withFolder((folder) =>
    withStand(async ({ forwarding, start, moves, complaints }) => {
      const gone = join(folder, 'gone');
      mkdirSync(gone);
      const path = join(gone, 'x.pcapng');
      createPcapng(path, 'test', [{ name: 'one', description: 'port 0', macAddress: new Uint8Array(6) }]);
      await forwarding.observe(0, { module: CAPTURE, data: { path, source: 0 } });
      rmSync(gone, { recursive: true });
      await start();
      await moves(0);
      assert.ok(complaints.some((text) => text.startsWith('nobody looks on at port 0 any more: ')));
      await forwarding.observe(0, undefined);
      await forwarding.stop();
    }),
  ));

test('a capture that lcores cannot open while they forward is refused, and not tried again', () =>
  withFolder((folder) =>
    withStand(async ({ forwarding, breaking, start, moves, complaints }) => {
      await start();
      const data = { path: join(folder, 'no', 'x.pcapng'), source: 0 };
      await forwarding.observe(0, { module: CAPTURE, data }).then(
        () => assert.unreachable('it is looked at'),
        (error: Error) => assert.match(error.message, /x\.pcapng/),
      );
      await moves(0);
      assert.equal(complaints, []);
      // Other threads are not asked for it.
      breaking.breakAt(Break.TURN);
      await until(() => complaints.length > 1, 'the end of the lcores');
      await forwarding.stop();
      breaking.breakAt(Break.NOT);
      await start();
      await moves(0);
      await forwarding.stop();
      assert.not.ok(complaints.some((text) => text.startsWith('nobody looks on')));
    }),
  ));

test('what lcores say is held back when 4 MiB of it have not been shown, and how much that was is said', () => {
  const unshown = new UnshownText();
  const sent: string[] = [];
  const print = new BoundedPrint(new UnshownText(unshown.handle), (text) => sent.push(text));
  const text = 'x'.repeat(1 << 20);
  for (let count = 0; count < 100; count++) print.print(text);
  assert.is(sent.length, 4);
  print.print('a complaint', true);
  assert.equal(sent.splice(4), ['96 texts were not shown: nobody read them in time\n', 'a complaint']);
  print.print(text);
  assert.is(sent.length, 4);
  for (const shown of sent.splice(0)) unshown.remove(shown);
  print.print('again');
  assert.equal(sent, ['1 texts were not shown: nobody read them in time\n', 'again']);
});

test.run();
