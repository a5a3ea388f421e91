/** A port of a user's own: the example of one, in an embedded device and behind vhost-user. */

import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { CountedPort } from '../../driver/backend/ports/port-counters.js';
import { openPort } from '../../driver/open.js';
import * as custom from '../../examples/custom-port.js';
import { PortHarness } from '../support/backend-port-harness.js';
import { runCli, startCli } from '../support/cli.js';
import { withFolder } from '../support/temp-folder.js';

const test = suite("a port of one's own");
const script = fileURLToPath(new URL('../../examples/custom-port.js', import.meta.url));
const names = { seen: 0, dropped: 1 } as const;

test('it loses every third packet, in order, whatever bursts they come in', () => {
  const spec = new CountedPort('', { every: 3 }, names);
  using harness = new PortHarness(custom, spec.options);
  const packet = (index: number): Uint8Array => Uint8Array.from({ length: 60 }, (_, at) => (at < 12 ? at : index));
  const swapped = (index: number): Uint8Array =>
    Uint8Array.from({ length: 60 }, (_, at) => (at < 12 ? (at + 6) % 12 : index));
  const kept = Array.from({ length: 200 }, (_, index) => index).filter((index) => index % 3 !== 2);
  const back = [1, 2, 30, 7, 60, 100].reduce<{ at: number; packets: Uint8Array[] }>(
    ({ at, packets }, count) => {
      const next = harness.bounce(Array.from({ length: count }, (_, index) => packet(at + index)));
      return { at: at + count, packets: [...packets, ...next] };
    },
    { at: 0, packets: [] },
  );
  assert.equal(back.packets, kept.map(swapped));
  assert.equal(spec.statistics(), { seen: 200, dropped: 66 });
});

test('the example over the embedded device', async () => {
  const end = await runCli(['--every', '4'], { script });
  assert.is(end.status, 0, end.stderr);
  assert.equal(end.left, []);
  assert.is(end.stdout, 'sent 1000  received 750  dropped 250\n');
});

test('the example as a vhost-user back-end, with our driver in front of it', () =>
  withFolder(async (folder) => {
    const path = join(folder, 's');
    const backend = startCli(['--socket-path', path, '--every', '2'], { script });
    try {
      await backend.printed(/listening/);
      const port = await openPort(`vhost-user:${path}`);
      try {
        await port.start();
        const burst = port.burst(32);
        let [sent, received] = [0, 0];
        for (const deadline = Date.now() + 20_000; received < 500; ) {
          assert.ok(Date.now() < deadline, `${received} of ${sent}`);
          if (burst.allocate(Math.min(32, 1000 - sent)) > 0) {
            for (let index = 0; index < burst.count; index++) burst.bytes(index).setLength(64);
            sent += port.txQueue(0).send(burst);
            burst.free();
          }
          received += port.rxQueue(0).receive(burst);
          burst.free();
          await new Promise(setImmediate);
        }
        assert.equal([sent, received], [1000, 500]);
      } finally {
        await port.close();
      }
    } finally {
      backend.kill('SIGINT');
    }
    const end = await backend.done;
    assert.is(end.status, 0, end.stderr);
    assert.equal(end.left, []);
    assert.match(end.stdout, /seen 1000 {2}dropped 500\n$/);
  }));

test.run();
