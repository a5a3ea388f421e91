/** `virtio-pmd loopback` as a user runs it: everything comes back, is verified and reported, and nothing stays. */

import { existsSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

import { suite } from 'uvu';
import * as assert from 'uvu/assert';

import { DEFAULT_BUFFER_BYTES, DEFAULT_HEADROOM } from '../../driver/memory/packet-pool.js';
import { PcapReader } from '../../driver/pcap/pcap-reader.js';
import { makePcap, pattern } from '../support/capture-files.js';
import { CLI, type CliEnd, runCli } from '../support/cli.js';
import { withFolder } from '../support/temp-folder.js';

export const timeBoundSeconds = 240;

const TRANSPORTS = ['pci', 'vhost-user'] as const;
const PACKETS = 3000;

/** What `--json` prints, as far as tests look at it. */
interface Result {
  readonly [name: string]: unknown;
  readonly sent: number;
  readonly bytes: { readonly sent: number; readonly received: number };
  readonly pps: { readonly sent: number; readonly received: number };
  readonly drops: Readonly<Record<string, number>>;
  readonly memory: { readonly kind: string; readonly bytes: number };
  readonly seconds: number;
  readonly firstPacketMs: number;
}

/** Runs it with `--json`, sees that it ended well and left nothing, and returns the object. */
async function loopback(...args: readonly string[]): Promise<Result> {
  const end = await runCli(['loopback', '--json', ...args]);
  assert.is(end.status, 0, `${args.join(' ')}: ${end.stderr}`);
  assert.equal(end.errors, []);
  assert.equal(end.left, [], 'nothing is left behind');
  const lines = end.stdout.split('\n');
  assert.is(lines.length, 2, 'one object on one line');
  return JSON.parse(end.stdout) as Result;
}

/** Sees that all of `packets` packets came back and were verified. */
function assertAllBack(result: Result, packets: number, what: string): void {
  const { ok, sent, received, verified, lost, reordered, corrupt, underWay } = result;
  const good = {
    ok: true,
    sent: packets,
    received: packets,
    verified: packets,
    lost: 0,
    reordered: 0,
    corrupt: 0,
    underWay: 0,
  };
  assert.equal({ ok, sent, received, verified, lost, reordered, corrupt, underWay }, good, what);
  assert.is(result.bytes.sent, result.bytes.received, what);
}

const test = suite('loopback command');

for (const transport of TRANSPORTS) {
  for (const queues of [1, 2, 4]) {
    test(`${transport}, ${queues} queue pairs: 64, imix, 1518 and 9000 bytes`, async () => {
      for (const size of ['64', 'imix', '1518', '9000']) {
        const args = [
          '--transport',
          transport,
          '--queues',
          String(queues),
          '--size',
          size,
          '--packets',
          String(PACKETS),
        ];
        const result = await loopback(...args);
        assertAllBack(result, PACKETS, args.join(' '));
        if (size !== 'imix') assert.is(result.bytes.sent, PACKETS * Number(size));
        assert.is(result['queues'], queues);
        assert.is(result['transport'], transport);
        assert.equal(new Set(Object.values(result.drops)), new Set([0]));
      }
    });
  }
}

test('the smallest and the largest packet, lengths that are no multiple of a word, and around a buffer', async () => {
  const buffer = DEFAULT_BUFFER_BYTES - DEFAULT_HEADROOM;
  for (const size of [64, 65, 66, 67, buffer - 1, buffer, buffer + 1, 2 * buffer + 1, 65_549, 65_550]) {
    const result = await loopback('--size', String(size), '--packets', '500');
    assertAllBack(result, 500, `${size} bytes`);
    assert.is(result.bytes.received, 500 * size);
  }
});

test('imix is 64, 594 and 1518 bytes as 7:4:1', async () => {
  const result = await loopback('--size', 'imix', '--packets', '1200', '--queues', '1');
  assert.is(result.bytes.sent, 700 * 64 + 400 * 594 + 100 * 1518);
});

test('rings from 4 to 1024 entries, bursts from 1 to 512', async () => {
  for (const [ringSize, burst] of [
    [4, 1],
    [4, 512],
    [8, 32],
    [1024, 512],
    [1024, 1],
  ] as const) {
    const args = ['--ring-size', String(ringSize), '--burst', String(burst), '--packets', '2000'];
    const result = await loopback(...args);
    assertAllBack(result, 2000, args.join(' '));
    assert.is(result['ringSize'], ringSize);
  }
});

test('packed rings, of any size, on either transport', async () => {
  for (const transport of TRANSPORTS) {
    for (const size of [4, 51, 256]) {
      const result = await loopback(
        ...['--transport', transport, '--ring', 'packed', '--ring-size', `${size}`],
        ...['--queues', '2', '--packets', `${PACKETS}`, '--size', 'imix'],
      );
      assertAllBack(result, PACKETS, `${transport}, packed ring of ${size}`);
      assert.equal([result['ring'], result['ringSize']], ['packed', size]);
    }
  }
});

test('packets are shared out over the queues, whatever their number', async () => {
  assertAllBack(await loopback('--packets', '1'), 1, 'one packet');
  assertAllBack(await loopback('--packets', '5', '--queues', '4'), 5, 'five packets over four queues');
});

test('ends after a duration, and without looking at packets when told so', async () => {
  const result = await loopback('--duration', '0.3', '--no-verify');
  assert.ok(result.sent > 0);
  assert.is(result['received'], result.sent);
  assert.is(result['verified'], 0);
  assert.ok(result.seconds > 0.29 && result.seconds < 30, `${result.seconds} s`);
});

test('threads can be pinned, and spin, pause, yield or sleep', async () => {
  for (const idle of ['spin', 'pause', 'yield', 'sleep']) {
    assertAllBack(await loopback('--idle', idle, '--lcores', '0,0', '--packets', '300', '--memory', '4K'), 300, idle);
  }
});

test('a feature that is demanded and there is no obstacle', async () => {
  const result = await loopback('--packets', '100', '--demand', 'EVENT_IDX', '--demand', 'virtio_net_f_mrg_rxbuf');
  assertAllBack(result, 100, 'with EVENT_IDX');
});

test('the object has all that scripts rely on', async () => {
  const result = await loopback('--packets', '1000', '--memory', '4K');
  const wanted = [
    'ok',
    'transport',
    'ring',
    'queues',
    'size',
    'sent',
    'received',
    'verified',
    'lost',
    'reordered',
    'seconds',
    'pps',
    'drops',
    'memory',
    'node',
    'version',
  ];
  assert.equal(
    wanted.filter((name) => !(name in result)),
    [],
  );
  assert.is(result['ring'], 'split');
  assert.is(result['size'], 64);
  assert.is(result['node'], process.versions.node);
  assert.match(String(result['version']), /^\d+\.\d+\.\d+/);
  assert.is(result.memory.kind, '4 KiB pages');
  assert.ok(result.memory.bytes > 256 * 2048);
  assert.ok(
    Math.abs(result.pps.received * result.seconds - 1000) < 1 + result.seconds / 2,
    'packets a second follow from packets and seconds',
  );
  assert.ok(result.firstPacketMs > 0 && result.firstPacketMs < 30_000, `${result.firstPacketMs} ms`);
  assert.type(result.drops['lostInFlight'], 'number');
});

test('people get a table', async () => {
  const end = await runCli(['loopback', '--packets', '1234']);
  assert.is(end.status, 0);
  assert.is(end.stderr, '', 'no progress where the output is no terminal');
  assert.match(end.stdout, /sent +│ +1,234 │ +78,976 │/);
  assert.match(end.stdout, /received +│ +1,234 │ +78,976 │/);
  assert.match(end.stdout, /dropped +│ nothing/);
  assert.match(end.stdout, /1,234 packets: every byte, the length, and the order in each queue/);
  assert.match(end.stdout, /0 lost, 0 reordered, 0 corrupt/);
  assert.match(end.stdout, /took +│ \d+\.\d\d s/);
  assert.match(end.stdout, /memory +│ [\d.]+ MiB on /);
});

test('a terminal sees progress after two seconds, and nobody else does', async () => {
  const args = ['loopback', '--duration', '5'];
  const piped = await runCli(args);
  assert.is(piped.stderr, '');
  assert.not.match(piped.stdout, /%/);
  /** In a terminal of its own; what `runCli` adds to the command is not looked at. */
  const onTerminal = (line: string): Promise<CliEnd> => {
    const command = `exec script -qec '"${process.execPath}" "${CLI}" ${line}' /dev/null`;
    return runCli([], { wrapper: ['sh', '-c', command, 'sh'] });
  };
  const shown = await onTerminal(args.join(' '));
  assert.is(shown.status, 0, shown.stdout);
  assert.match(shown.stdout, /\d+ % {2}\d of 5 s, [\d,]+ packets, [\d.]+ .?pps/);
  const cursor = ['\\[\\?25l', '\\[\\?25h'].map((code) => shown.stdout.match(new RegExp(code, 'g'))?.length);
  assert.equal(cursor, [1, 1], 'the cursor is hidden and shown again');
  assert.match(shown.stdout, /took +│ \d+\.\d\d s/);
  const short = await onTerminal('loopback --packets 100');
  assert.is(short.status, 0, short.stdout);
  const [, took] = /took +│ (\d+\.\d\d) s/.exec(short.stdout) ?? [];
  assert.ok(!/%/.test(short.stdout) || Number(took) >= 2, short.stdout);
});

test('the back-end listens where it is told, and its socket goes with it', () =>
  withFolder(async (folder) => {
    const path = join(folder, 'x.sock');
    assertAllBack(await loopback('--socket-path', path, '--packets', '200'), 200, path);
    assert.not.ok(existsSync(path));
  }));

test('a capture comes back as it is, with its times, as often as asked for', () =>
  withFolder(async (folder) => {
    const packets = [60, 14, 61, 1514, 9000, 65_550, 42, 64].map((length, index) => ({
      seconds: 1_700_000_000 + index,
      fraction: 123_456_789 + index,
      bytes: pattern(length, index),
    }));
    const input = join(folder, 'in.pcap');
    const output = join(folder, 'out.pcap');
    writeFileSync(input, makePcap({ little: true, nanoseconds: true }, packets));
    for (const transport of TRANSPORTS) {
      const once = await loopback('--pcap-in', input, '--pcap-out', output, '--transport', transport);
      assertAllBack(once, packets.length, 'the capture once');
      assert.is(once['size'], 'pcap');
      assertCapture(output, packets);
      const often = await loopback(
        '--pcap-in',
        input,
        '--pcap-out',
        output,
        '--transport',
        transport,
        '--packets',
        '20',
      );
      assertAllBack(often, 20, 'the capture two and a half times');
      assertCapture(output, [...packets, ...packets, ...packets.slice(0, 4)]);
    }
    assertAllBack(await loopback('--pcap-in', input, '--queues', '3', '--packets', '1000'), 1000, 'over three queues');
  }));

/** Sees that a file holds these packets. */
function assertCapture(
  path: string,
  packets: readonly { seconds: number; fraction: number; bytes: Uint8Array }[],
): void {
  const reader = PcapReader.open(path);
  try {
    const found = [...reader].map(({ bytes, timestampNs }) => ({
      bytes: Buffer.from(bytes).toString('hex'),
      timestampNs,
    }));
    const wanted = packets.map(({ seconds, fraction, bytes }) => ({
      bytes: Buffer.from(bytes).toString('hex'),
      timestampNs: BigInt(seconds) * 1_000_000_000n + BigInt(fraction),
    }));
    assert.is(found.length, wanted.length);
    assert.equal(found, wanted);
  } finally {
    reader.close();
  }
}

test('packets that are made up can be stored too', () =>
  withFolder(async (folder) => {
    const output = join(folder, 'out.pcap');
    const before = BigInt(Date.now()) * 1_000_000n;
    assertAllBack(await loopback('--pcap-out', output, '--packets', '50', '--size', '100'), 50, 'stored');
    const reader = PcapReader.open(output);
    const packets = [...reader];
    reader.close();
    assert.is(packets.length, 50);
    for (const { bytes, timestampNs } of packets) {
      assert.is(bytes.length, 100);
      assert.equal([...bytes.subarray(12, 14)], [0x88, 0xb5], 'the EtherType for local experiments');
      assert.ok(timestampNs >= before);
    }
  }));

/** Runs it and sees that it is about help or version: on standard output, and a success. */
async function told(...args: readonly string[]): Promise<CliEnd> {
  const end = await runCli(args);
  assert.is(end.status, 0);
  assert.is(end.stderr, '');
  return end;
}

test('help and version', async () => {
  assert.match((await told('--version')).stdout, /^\d+\.\d+\.\d+\n$/);
  for (const args of [['--help'], ['loopback', '--help']]) {
    const { stdout } = await told(...args);
    assert.match(stdout, /^Usage: virtio-pmd/);
    assert.match(stdout, /Examples:\n {2}virtio-pmd loopback/);
    assert.match(stdout, /Exit status: 0/);
    assert.ok(
      stdout.split('\n').every((line) => line.length <= 90),
      'lines fit a terminal',
    );
  }
});

test.run();
