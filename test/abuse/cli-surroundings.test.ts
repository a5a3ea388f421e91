/** What a machine can lack or refuse: one line says it, the status is 1, and nothing is left behind. */

import { chmodSync, closeSync, existsSync, mkdirSync, openSync, readFileSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { join } from 'node:path';

import { suite } from 'uvu';
import * as assert from 'uvu/assert';

import { PcapReader } from '../../driver/pcap/pcap-reader.js';
import { GiB, MiB } from '../../driver/units.js';
import { native } from '../../native/index.js';
import { makePcap, pattern } from '../support/capture-files.js';
import { type CliEnd, type CliOptions, runCli } from '../support/cli.js';
import { skipWithoutRoot } from '../support/skip.js';
import { withFolder } from '../support/temp-folder.js';

const isRoot = process.getuid?.() === 0;
/** Root without what makes root exempt: like any other user to the kernel, with the same files. */
const without = (...capabilities: readonly string[]): string[] => {
  const list = capabilities.map((name) => `-${name}`).join(',');
  return isRoot ? ['setpriv', `--bounding-set=${list}`, `--inh-caps=${list}`] : [];
};
/** More packets' memory than others give back while the test runs: more than 1 GiB. */
const MUCH = ['--queues', '128', '--ring-size', '2048'];

/** Calls `use` while all free hugepages of a size are taken. */
async function withoutHugepages(pageBytes: number, use: () => Promise<unknown>): Promise<void> {
  const file = `/sys/kernel/mm/hugepages/hugepages-${pageBytes / 1024}kB/free_hugepages`;
  const free = existsSync(file) ? Number(readFileSync(file, 'utf8')) : 0;
  if (free === 0) return void (await use());
  const fd = native.createMemory('taken', free * pageBytes, pageBytes);
  try {
    // Mapping them takes them; they need not be touched.
    const taken = native.mapShared(fd, 0, free * pageBytes, 0);
    try {
      await use();
    } finally {
      native.unmapShared(taken);
    }
  } finally {
    native.closeFd(fd);
  }
}

/** Runs it; sees one line of this code, which matches, the status 1, and that nothing stays. */
async function assertFails(
  args: readonly string[],
  code: string,
  complaint: RegExp,
  options?: CliOptions,
): Promise<CliEnd> {
  const end = await runCli(['loopback', ...args], options);
  const what = `virtio-pmd loopback ${args.join(' ')}: ${end.stdout}${end.stderr}`;
  assert.is(end.status, 1, what);
  assert.is(end.errors.length, 1, what);
  assert.match(end.stderr, new RegExp(`^virtio-pmd: ${code}: [^\n]+ \\([^\n]+\\)\n$`), what);
  assert.match(end.stderr, complaint);
  assert.equal(end.left, [], what);
  return end;
}

const test = suite('what the surroundings refuse');
const rootTest = skipWithoutRoot(test);

test('a socket that is not there, is no socket, or that nobody listens on', () =>
  withFolder(async (folder) => {
    const missing = join(folder, 'missing');
    await assertFails(['--connect', missing], 'NOT_FOUND', /there is no socket .*missing \(start the other side first/);
    const file = join(folder, 'file');
    writeFileSync(file, '');
    await assertFails(['--connect', file], 'WRONG_KIND', /file is not a socket/);
    await assertFails(['--connect', folder], 'WRONG_KIND', /is not a socket/);
    await assertFails(['--socket-path', file], 'WRONG_KIND', /file is not a socket/);
    assert.is(readFileSync(file, 'utf8'), '', 'the file is still there');
    await assertFails(['--socket-path', join(missing, 'x.sock')], 'NOT_FOUND', /there is no directory/);
  }));

test('a socket that somebody else listens on', () =>
  withFolder(async (folder) => {
    const path = join(folder, 'taken.sock');
    const server = createServer();
    await new Promise<void>((resolve) => server.listen(path, resolve));
    try {
      await assertFails(['--socket-path', path], 'IN_USE', /somebody listens on .*taken.sock already/);
      assert.ok(existsSync(path), 'the other one still has its socket');
    } finally {
      server.close();
    }
  }));

test('a socket and a folder without permission', () =>
  withFolder(async (folder) => {
    const path = join(folder, 'theirs.sock');
    const wrapper = without('dac_override', 'dac_read_search');
    const server = createServer();
    await new Promise<void>((resolve) => server.listen(path, resolve));
    try {
      chmodSync(path, 0);
      await assertFails(['--connect', path], 'PERMISSION_DENIED', /not allowed to connect to/, { wrapper });
    } finally {
      server.close();
    }
    const closed = join(folder, 'closed');
    mkdirSync(closed, { mode: 0o500 });
    await assertFails(['--socket-path', join(closed, 'x')], 'PERMISSION_DENIED', /not allowed to listen on/, {
      wrapper,
    });
    await assertFails(['--packets', '9', '--pcap-out', join(closed, 'x')], 'PERMISSION_DENIED', /cannot create/, {
      wrapper,
    });
  }));

test('no folder for temporary files', async () => {
  const environment = { TMPDIR: '/nonexistent' };
  await assertFails(
    ['--transport', 'vhost-user'],
    'IO',
    /no folder to be made in \/nonexistent.*set TMPDIR, or use --socket-path/,
    { environment },
  );
});

test('no hugepages of the kind that is demanded', async () => {
  await withoutHugepages(2 * MiB, () =>
    assertFails(['--memory', '2M', ...MUCH], 'NO_RESOURCES', /there are no \d+ free 2 MiB hugepages.*nr_hugepages/),
  );
  await withoutHugepages(GiB, async () => {
    await assertFails(
      ['--memory', '1G', ...MUCH],
      'NO_RESOURCES',
      /there are no \d+ free 1 GiB hugepages.*nr_hugepages/,
    );
    await assertFails(['--memory', '1G', '--transport', 'vhost-user', ...MUCH], 'NO_RESOURCES', /1 GiB hugepages/);
  });
});

test('ordinary pages will do where there are no hugepages', () =>
  withoutHugepages(2 * MiB, async () => {
    const end = await runCli(['loopback', '--json', '--packets', '100']);
    assert.is(end.status, 0, end.stderr);
    const { memory } = JSON.parse(end.stdout) as { memory: { kind: string } };
    // Somebody else may have given some back in the meantime.
    assert.ok(['4 KiB pages (no free 2 MiB hugepages)', '2 MiB hugepages'].includes(memory.kind), memory.kind);
  }));

test('less memory to lock than is needed', async () => {
  const wrapper = ['prlimit', '--memlock=65536:65536', ...without('ipc_lock')];
  const args = ['--lock', '--memory', '4K', '--packets', '10'];
  await assertFails(
    args,
    'NO_RESOURCES',
    /the memlock limit is 65536 bytes \(raise it to at least \d+ bytes, with ulimit -l/,
    { wrapper },
  );
});

test('input that is no capture, is cut off, or holds what cannot be sent', () =>
  withFolder(async (folder) => {
    const path = join(folder, 'x.pcap');
    const whole = makePcap(
      { little: true, nanoseconds: true },
      [64, 100, 1500].map((length) => ({ seconds: 1, fraction: 2, bytes: pattern(length) })),
    );
    const cases: readonly (readonly [bytes: Uint8Array | string, complaint: RegExp])[] = [
      ['', /x\.pcap is not a capture file: it is empty/],
      ['just a text\n', /is not a capture file: it looks like text/],
      [whole.subarray(0, 10), /the file ends after 10 of the 24 bytes/],
      [whole.subarray(0, whole.length - 1), /packet 3 at byte \d+: the file ends after/],
      [whole.subarray(0, 24), /x\.pcap holds no packets/],
      [makePcap({ little: true, nanoseconds: false, linkType: 113 }, []), /link type is LINUX_SLL/],
      [
        makePcap({ little: false, nanoseconds: false }, [{ seconds: 1, fraction: 1, bytes: pattern(13) }]),
        /packet 1 has 13 bytes, and a network device takes 14 to 65550/,
      ],
      [
        makePcap({ little: true, nanoseconds: false }, [{ seconds: 1, fraction: 1, bytes: pattern(65_551) }]),
        /packet 1 has 65551 bytes/,
      ],
    ];
    for (const [bytes, complaint] of cases) {
      writeFileSync(path, bytes);
      await assertFails(['--pcap-in', path], 'BAD_FORMAT', complaint);
    }
    await assertFails(
      ['--pcap-in', join(folder, 'missing')],
      'NOT_FOUND',
      /cannot open .*missing: there is no such file/,
    );
    await assertFails(['--pcap-in', folder], 'WRONG_KIND', /it is a folder/);
  }));

test('a full disk: what was to be stored, and the result itself', async () => {
  const end = await assertFails(
    ['--packets', '50000', '--pcap-out', '/dev/full'],
    'IO',
    /writing \/dev\/full failed.*no space left on the disk \(make room/,
  );
  assert.is(end.milliseconds < 30_000, true, 'it does not go on');
  const full = openSync('/dev/full', 'w');
  try {
    for (const json of [[], ['--json']]) {
      await assertFails(
        ['--packets', '10', ...json],
        'IO',
        /the result could not be written: no space left on the disk/,
        { stdout: full },
      );
    }
  } finally {
    closeSync(full);
  }
});

rootTest('a disk that fills up: what is there is whole', () =>
  withFolder(async (folder) => {
    // In a mount namespace of its own, which goes with the process; the file is copied out before.
    const small = join(folder, 'small');
    const copy = join(folder, 'copy.pcap');
    mkdirSync(small);
    const script = `mount -t tmpfs -o size=1m none ${small} && { "$@"; status=$?; cp ${small}/x.pcap ${copy}; exit $status; }`;
    const wrapper = ['unshare', '--mount', 'sh', '-c', script, 'sh'];
    const args = ['--packets', '100000', '--pcap-out', join(small, 'x.pcap')];
    await assertFails(args, 'IO', /x\.pcap failed; the file is closed with \d+ packets .*no space left on the disk/, {
      wrapper,
    });
    const reader = PcapReader.open(copy);
    const packets = [...reader].length;
    reader.close();
    assert.ok(packets > 1000, `${packets} packets are whole`);
  }),
);

test('a reader that goes away is no failure', async () => {
  const pipe = ['sh', '-c', '"$@" | true; echo done >&2', 'sh'];
  const end = await runCli(['loopback', '--packets', '10'], { wrapper: pipe });
  assert.is(end.stderr, 'done\n');
  assert.equal(end.left, []);
});

test('with --json there is an object, which says what was wrong', async () => {
  const end = await assertFails(['--json', '--connect', '/nonexistent'], 'NOT_FOUND', /there is no socket/);
  const { ok, error, sent, memory } = JSON.parse(end.stdout) as {
    ok: boolean;
    error: { code: string };
    sent: number;
    memory: null;
  };
  assert.equal({ ok, code: error.code, sent, memory }, { ok: false, code: 'NOT_FOUND', sent: 0, memory: null });
});

test.run();
