/** Command lines of `virtio-pmd top` that can never work, and targets that cannot be looked at: one line says why. */

import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { type CliEnd, runCli } from '../support/cli.js';
import { CliDaemon } from '../support/cli-daemon.js';
import { assertWrongUsage } from '../support/cli-usage.js';
import { rawServer } from '../support/control-peers.js';
import { withFolder } from '../support/temp-folder.js';

export const timeBoundSeconds = 120;

/** What stands behind `top`, and what its one line of complaint has to name. */
const WRONG: readonly (readonly [line: string, complaint: RegExp])[] = [
  ['--nonsense', /unknown option '--nonsense' \(see virtio-pmd top --help\)/],
  ['--interval', /option '--interval <S>' argument missing/],
  ['--interval=0', /--interval takes a number of seconds .*, not 0/],
  ['--interval=0.05', /--interval takes a number of seconds from 0.1 to 1,000,000, not 0.05/],
  ['--interval=-1', /--interval takes .*, not -1/],
  ['--interval=fast', /--interval takes .*, not fast/],
  ['--sort=name', /--sort takes port or packets or .*, not name/],
  ['1 2', /it looks at one process at a time/],
  ['1 --list', /--list shows all that runs, not 1 alone/],
  ['--list --once', /--list is one list anyway/],
  ['--list --loopback', /--loopback and --list exclude each other/],
  ['1 --loopback', /--loopback looks at traffic of its own, not at 1/],
  ['--once --loopback -- --queues=0', /--queues takes a number from 1 to 128, not 0/],
  ['--once --loopback -- --nonsense', /unknown option '--nonsense' \(see virtio-pmd loopback --help\)/],
  ['--once --loopback -- --connect=/x --socket-path=/y', /cannot be used with/],
];

const test = suite('wrong usage of virtio-pmd top');

for (const [line, complaint] of WRONG) {
  test(line, () => assertWrongUsage(['top', ...line.split(' ')], complaint));
}

/** Sees one line of this code, which matches, the status, and that nothing was printed or stays. */
function assertFailed(end: CliEnd, status: number, code: string, complaint: RegExp): void {
  assert.is(end.status, status, end.stdout + end.stderr);
  assert.match(end.stderr, new RegExp(`^virtio-pmd: ${code}: [^\n]+ \\([^\n]+\\)\n$`));
  assert.match(end.stderr, complaint);
  assert.is(end.stdout, '');
  assert.equal(end.left, []);
}

test('nothing runs: a failure that says what to start; a list without entries is none', async () => {
  assertFailed(await runCli(['top']), 1, 'NOT_FOUND', /no command of virtio-pmd runs .*--loopback/);
  assertFailed(await runCli(['top', '4194305']), 1, 'NOT_FOUND', /process 4194305 has no control socket/);
  const { status, stdout } = await runCli(['top', '--list']);
  assert.equal([status, stdout], [0, 'nothing runs\n']);
  assert.equal((await runCli(['top', '--list', '--json'])).stdout, '[]\n');
});

test('paths that are no control socket', () =>
  withFolder(async (folder) => {
    const path = join(folder, 'x');
    assertFailed(await runCli(['top', path]), 1, 'NOT_FOUND', /there is no socket/);
    writeFileSync(path, 'a file');
    assertFailed(await runCli(['top', path]), 1, 'WRONG_KIND', /is not a socket/);
    assertFailed(await runCli(['top', folder]), 1, 'WRONG_KIND', /is not a socket/);
    assertFailed(await runCli(['top', join(folder, 'x'.repeat(120))]), 2, 'INVALID_ARGUMENT', /107 bytes at most/);
    const other = join(folder, 'other.sock');
    const close = await rawServer(other, (socket) => void socket.on('data', () => socket.write('220 mail.example\n')));
    try {
      assertFailed(await runCli(['top', other, '--once']), 1, 'BAD_FORMAT', /does not answer as virtio-pmd does/);
    } finally {
      await close();
    }
  }));

test('several that run, and nobody to ask: the usage is wrong, and both are named', () =>
  withFolder(async (folder) => {
    const environment = { XDG_RUNTIME_DIR: folder };
    const daemons: CliDaemon[] = [];
    try {
      for (const name of ['a', 'b']) {
        daemons.push(await CliDaemon.start([`--socket-path=${join(folder, name)}`], { environment }));
      }
      const pids = daemons.map(({ cli }) => cli.pid);
      for (let tries = 0; tries < 50; tries++) {
        const { stdout } = await runCli(['top', '--list', '--json'], { environment });
        const found = (JSON.parse(stdout) as { pid: number; command: string }[]).map(({ pid }) => pid);
        if (found.length < 2) continue;
        assert.equal(found, pids, 'in the order of their start');
        break;
      }
      const end = await runCli(['top'], { environment });
      assertFailed(
        end,
        2,
        'INVALID_ARGUMENT',
        new RegExp(`which process: ${pids[0]} \\(backend\\), ${pids[1]} \\(backend\\)`),
      );
      const list = (await runCli(['top', '--list'], { environment })).stdout;
      for (const pid of pids) assert.match(list, new RegExp(`^ +${pid}  backend +\\d+ s  .*/${pid}\\.sock$`, 'm'));
      for (const daemon of daemons) await daemon.stop();
    } finally {
      for (const { cli } of daemons) cli.kill('SIGKILL');
    }
  }));

test('--loopback without a terminal: one table, then the table of the run; JSON for scripts', async () => {
  const once = await runCli(['top', '--loopback', '--once', '--interval=3']);
  assert.is(once.status, 0, once.stderr);
  assert.match(
    once.stdout,
    /^virtio-pmd top: loopback \d+, [\s\S]*\ndriver +rx 0 +[1-9][\s\S]*0 lost, 0 reordered, 0 corrupt/,
  );
  const json = await runCli(['top', '--loopback', '--once', '--json', '--interval=3', '--', '--json']);
  const [sample, result] = json.stdout
    .split('\n')
    .filter(Boolean)
    .map((line) => JSON.parse(line) as Record<string, unknown>);
  assert.ok((sample!['in'] as { packetsPerSecond: number }).packetsPerSecond > 0, json.stdout);
  assert.is(result!['ok'], true);
  assert.equal(json.left, []);
});

test.run();
