/** `virtio-pmd top` on a terminal: what it shows, which keys it takes, and that it leaves the terminal as it was. */

import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import stringWidth from 'string-width';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { CLI, type RunningCli, startCli } from '../support/cli.js';
import { skipWithout } from '../support/skip.js';
import { withFolder } from '../support/temp-folder.js';
import { Terminal } from '../support/tmux.js';

export const timeBoundSeconds = 240;

const test = skipWithout(suite('top on a terminal'), 'tmux');

const NODE = process.execPath;

interface World {
  readonly terminal: Terminal;
  /** Runs `virtio-pmd ARGS` in the terminal; its exit status is shown behind it, as `ended 0`. */
  run(args: string): void;
  /** Starts a loopback that lasts, and can be looked at. */
  loopback(...args: readonly string[]): RunningCli;
}

const withTerminal = (use: (world: World) => Promise<void>, columns = 80, rows = 24): Promise<void> =>
  withFolder(async (folder) => {
    mkdirSync(join(folder, 'run'), { mode: 0o700 });
    const environment = { XDG_RUNTIME_DIR: join(folder, 'run') };
    const running: RunningCli[] = [];
    const terminal = await Terminal.open(columns, rows, environment);
    try {
      await use({
        terminal,
        run: (args) => terminal.type(`${NODE} ${CLI} ${args}; echo ended $?`),
        loopback: (...args) => {
          const cli = startCli(['loopback', '--duration', '120', ...args], { environment, timeoutMs: 150_000 });
          running.push(cli);
          return cli;
        },
      });
    } finally {
      terminal.close();
      for (const cli of running) {
        cli.kill('SIGINT');
        await cli.done;
      }
    }
  });

/** Waits until so many processes let themselves be looked at. */
async function answers(terminal: Terminal, count: number): Promise<void> {
  for (let known = -1; known !== count; ) {
    terminal.type(`clear; ${NODE} ${CLI} top --list --json | grep -o '"pid"' | wc -l | sed 's/^/known /'`);
    const lines = await terminal.shows(/^known \d+$/m);
    known = Number(/^known (\d+)$/m.exec(lines.join('\n'))?.[1]);
  }
  terminal.type('clear');
  await terminal.until((lines) => !lines.join('').includes('known'), 'an empty page');
}

const SHOWN = /^driver +rx 0 +\d/m;
/** Behind the view stands what was there before, and nothing of the view. */
const BEFORE = 'this was here before';

test('the only process: rates, fill and threads in 80 x 24; q leaves everything as it was', () =>
  withTerminal(async ({ terminal, run, loopback }) => {
    const { pid } = loopback();
    await answers(terminal, 1);
    terminal.type(`echo ${BEFORE}`);
    run('top --interval 0.3');
    const lines = await terminal.shows(/^in +[1-9][\d.]* [kM] packet\/s/m);
    assert.is(lines.length, 24);
    assert.match(lines[0]!, new RegExp(`^virtio-pmd top: loopback ${pid}, up \\d+ s; 2 ports, 4 queues, every 0.3 s$`));
    assert.match(lines[1]!, /[▁▂▃▄▅▆▇█]/, 'a curve');
    assert.match(lines[4]!, /^threads +main \d+ % on \d, .*(device|lcore)-/);
    assert.match(lines[6]!, /^PORT +QUEUE +PACKET\/S +BIT\/S +DROP\/S +RING FILL +HITS/);
    assert.match(lines[7]!, /^driver +rx 0 +[\d.]+ [kM] +[\d.]+ [kMG] +0 [█░]{6} +\d+\/256 +\d+ %/);
    assert.match(lines[23]!, /^q quit/);
    terminal.press('q');
    const after = await terminal.shows(/^ended 0$/m);
    assert.ok(after.includes(BEFORE));
    assert.not.match(after.join('\n'), SHOWN);
    // The shell has its own line again: what is typed is seen.
    terminal.type('echo as it was');
    await terminal.shows(/^as it was$/m);
  }));

test('keys: by port, sorted, help, standing still; another size is drawn at once', () =>
  withTerminal(async ({ terminal, run, loopback }) => {
    loopback('--queues', '2');
    await answers(terminal, 1);
    run('top --interval 0.2');
    await terminal.shows(SHOWN);
    terminal.press('v');
    await terminal.shows(/^driver +in +[\s\S]*^driver +out +/m);
    terminal.press('v', 's');
    await terminal.shows(/s sort: packets/);
    terminal.press('r');
    await terminal.shows(/s sort: packets, reversed/);
    terminal.press('?');
    await terminal.shows(/^space +stand still/m);
    terminal.press('?', 'Space');
    const still = await terminal.shows(/, paused$/m);
    await new Promise((resolve) => setTimeout(resolve, 500));
    assert.equal(terminal.lines, still);
    terminal.press('Space', '+');
    await terminal.shows(/every 0\.4 s$/m);
    terminal.resize(132, 30);
    const wide = await terminal.shows(/NOTIFY\/S/);
    assert.is(wide.length, 30);
    terminal.resize(50, 12);
    const narrow = await terminal.until((lines) => lines.length === 12 && !lines.join('').includes('HITS'), 'less');
    for (const line of narrow) assert.ok(stringWidth(line) <= 50, line);
    assert.match(narrow.at(-1)!, /^q quit/);
    terminal.press('Down', 'Down');
    terminal.press('C-c');
    await terminal.shows(/^ended 0$/m);
  }));

test('several processes: asks which; the chosen one is shown, its end is told, and to choose none is no failure', () =>
  withTerminal(async ({ terminal, run, loopback }) => {
    const first = loopback();
    await answers(terminal, 1);
    loopback('--ring', 'packed');
    await answers(terminal, 2);
    run('top --interval 0.2');
    await terminal.shows(/which process\?/);
    terminal.press('q');
    await terminal.shows(/^ended 0$/m);
    terminal.type('clear');
    run('top --interval 0.2');
    const choice = await terminal.shows(/which process\?/);
    assert.match(choice[3]!, new RegExp(`^ 1\\. +${first.pid}  loopback `), 'the older one first');
    terminal.press('Down', 'Up', 'Enter');
    await terminal.shows(SHOWN);
    assert.match(terminal.lines[0]!, new RegExp(`loopback ${first.pid},`));
    first.kill('SIGINT');
    const after = await terminal.shows(/^ended 0$/m);
    assert.match(after.join('\n'), /note: the process behind/);
  }));

test("stopped by Ctrl-Z the terminal is the shell's; fg brings the view back", () =>
  withTerminal(async ({ terminal, run, loopback }) => {
    loopback();
    await answers(terminal, 1);
    run('top');
    await terminal.shows(SHOWN);
    terminal.press('C-z');
    await terminal.shows(/Stopped/);
    terminal.type('echo in between');
    await terminal.shows(/^in between$/m);
    terminal.type('fg');
    await terminal.shows(SHOWN);
    terminal.press('q');
    await terminal.until((lines) => !SHOWN.test(lines.join('\n')), 'the shell');
  }));

test('--loopback: its own traffic, and the table of the run at the end', () =>
  withTerminal(
    async ({ terminal, run }) => {
      run('top --loopback --interval 0.3 -- --queues 2 --ring packed');
      await terminal.shows(/^driver +rx 1 +[1-9]/m);
      await terminal.shows(/^back-end +transmitq 1 +[1-9]/m);
      terminal.press('q');
      const lines = (await terminal.shows(/^ended 0$/m)).join('\n');
      assert.match(lines, /2 queues, packed rings of 256/);
      assert.match(lines, /0 lost, 0 reordered, 0 corrupt/);
    },
    110,
    40,
  ));

test.run();
