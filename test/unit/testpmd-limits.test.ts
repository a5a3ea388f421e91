/** What testpmd refuses of sizes and counts that nothing could come of, and how long a line is. */

import { Readable } from 'node:stream';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import type { Interpreter } from '../../driver/cli/testpmd/console/interpreter.js';
import { servePipe } from '../../driver/cli/testpmd/console/pipe-console.js';
import { NullDevice } from '../../driver/cli/testpmd/devices/null-device.js';
import { setForwardPortCount } from '../../driver/cli/testpmd/forward-sets.js';
import { Forwarding } from '../../driver/cli/testpmd/forwarding.js';
import { applicationOptions } from '../../driver/cli/testpmd/options/application-options.js';
import { packetOptions } from '../../driver/cli/testpmd/options/packet-options.js';
import type { Output } from '../../driver/cli/testpmd/output.js';
import { setBurst, setTxSegments } from '../../driver/cli/testpmd/packet-settings.js';
import { Settings } from '../../driver/cli/testpmd/settings.js';
import { Testpmd } from '../../driver/cli/testpmd/testpmd.js';
import { createPool } from '../../driver/net/create-pool.js';
import { plainPort, plainSettings } from '../support/forward-engine.js';

const test = suite('testpmd limits');

function stand() {
  const said: string[] = [];
  const output = { say: (line: string) => said.push(line), warn: (line: string) => said.push(line) };
  const pool = createPool({ size: 512, bufferBytes: 2240, headroom: 140, pages: '4K' });
  const forwarding = new Forwarding({ pool, cpuOf: () => undefined, print: () => undefined });
  const testpmd = new Testpmd({
    settings: new Settings(),
    output: output as unknown as Output,
    lcores: { main: 0, workers: [1] },
    pool,
    makers: [],
    forwarding,
  });
  for (const name of ['net_null0', 'net_null1']) testpmd.addPort(new NullDevice(name, '', pool.dataBytes));
  testpmd.resetForwarding();
  testpmd.layOut();
  const close = async (): Promise<void> => {
    await forwarding.close();
    pool.memory.close();
  };
  return { testpmd, said, close };
}

test('ports forward until what runs is stopped, whatever nbport is set to meanwhile', async () => {
  const { testpmd, close } = stand();
  const [, second] = testpmd.allPorts;
  const ports = new Map(testpmd.allPorts.map(({ id }) => [id, plainPort]));
  await testpmd.forwarding.start(
    testpmd.plan,
    { ...plainSettings, ports },
    { devices: new Map(testpmd.allPorts.map(({ id, device }) => [id, device])), flush: false, txFirst: 0 },
  );
  setForwardPortCount(testpmd, 1);
  testpmd.layOut();
  assert.ok(testpmd.isForwarding(second!));
  await testpmd.forwarding.stop();
  assert.not.ok(testpmd.isForwarding(second!));
  await close();
});

test('segments of packets that are made fit into a buffer', async () => {
  const { testpmd, said, close } = stand();
  setTxSegments(testpmd, [64, 2176]);
  assert.equal(said, ['length[1]=2176 > mbuf_data_size=2100 - give up']);
  assert.equal(testpmd.settings.txSegments, [64]);
  setTxSegments(testpmd, [2100]);
  assert.equal(testpmd.settings.txSegments, [2100]);
  await close();
});

test('a burst has 1 to 512 packets', async () => {
  const { testpmd, close } = stand();
  for (const packets of [0, 513, 0xffff]) setBurst(testpmd, packets);
  for (const packets of ['0', '-1', '-65535', '513', 'x']) {
    assert.throws(() => packetOptions.burst?.(testpmd, packets), /between ?1 and 512/, packets);
  }
  assert.is(testpmd.settings.burst, 32);
  setBurst(testpmd, 512);
  assert.is(testpmd.settings.burst, 512);
  await close();
});

test('a period of statistics has 16 bits, as in testpmd', async () => {
  const { testpmd, close } = stand();
  for (const seconds of ['65536', '2147484', '99999999999', '-1', '1x', '']) {
    assert.throws(() => applicationOptions['stats-period']?.(testpmd, seconds), /Invalid stats-period/, seconds);
  }
  applicationOptions['stats-period']?.(testpmd, '65535');
  assert.is(testpmd.settings.statsPeriod, 65_535);
  await close();
});

/** The lines that a console on a pipe runs, and all that it writes. */
async function serve(chunks: Iterable<string>): Promise<{ lines: string[]; written: string }> {
  const lines: string[] = [];
  let written = '';
  const output = {
    write: (text: string) => {
      written += text;
    },
  };
  const run = async (line: string): Promise<void> => void lines.push(line);
  const interpreter = { output, isOver: false, run } as unknown as Interpreter;
  await servePipe(interpreter, Readable.from(chunks, { objectMode: false }), new AbortController().signal);
  return { lines, written };
}

test('a console on a pipe takes lines as they come, in pieces or several at once', async () => {
  assert.equal((await serve(['sta', 'rt\nst', 'op\r', '\nqu\x07it'])).lines, ['start', 'stop', '']);
});

test('a line has 512 characters, and one without an end takes no more time or memory than its bytes', async () => {
  const chunks = 1024;
  const start = performance.now();
  const endless = function* (): Generator<string> {
    for (let chunk = 0; chunk < chunks; chunk++) yield 'x'.repeat(0x1_0000);
  };
  const { lines, written } = await serve(endless());
  // 64 MiB; where each piece is looked through with all before it, they are 32 GiB.
  assert.ok(performance.now() - start < 10_000);
  assert.equal(lines, []);
  assert.is(written, `testpmd> ${'x'.repeat(512)}`);
  assert.equal((await serve(['y'.repeat(500), 'z'.repeat(500), '\nok\n'])).lines, [
    'y'.repeat(500) + 'z'.repeat(12),
    'ok',
  ]);
});

test.run();
