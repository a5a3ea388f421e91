/** testpmd's console on a terminal, which `script` gives it: completion, suggestions, history, Ctrl-C and Ctrl-D. */

import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as pause } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';

export const timeBoundSeconds = 60;

const test = suite('testpmd on a terminal');
const MAIN = fileURLToPath(new URL('../../driver/cli/main.js', import.meta.url));
const OPTIONS = '--no-pci --no-huge -l 0,1 --vdev net_null0 --vdev net_null1 -- -i --total-num-mbufs=2048';

/** Types keys one after the other, each when what went before was answered; gives what the terminal showed, and the status. */
async function typed(home: string, keys: readonly (readonly [key: string, answer: RegExp])[]): Promise<string> {
  const command = `${process.execPath} ${MAIN} testpmd ${OPTIONS}`;
  const child = spawn('script', ['-qefc', command, '/dev/null'], {
    env: { ...process.env, HOME: home, TERM: 'xterm' },
  });
  const exit = once(child, 'exit');
  const limit = setTimeout(() => child.kill('SIGKILL'), 20_000);
  let shown = '';
  child.stdout.on('data', (bytes: Buffer) => {
    shown += bytes.toString();
  });
  let from = 0;
  for (const [key, answer] of [['', /testpmd> /] as const, ...keys]) {
    child.stdin.write(key);
    while (!answer.test(shown.slice(from)) && child.exitCode === null && child.signalCode === null) await pause(10);
    from = shown.length;
  }
  const [status] = await exit;
  clearTimeout(limit);
  assert.is(status, 0, shown);
  return shown;
}

async function withHome(body: (home: string) => Promise<void>): Promise<void> {
  const home = mkdtempSync(join(tmpdir(), 'testpmd-terminal-'));
  try {
    await body(home);
  } finally {
    rmSync(home, { recursive: true });
  }
}

test('the tabulator completes words, a misspelt one is put right', () =>
  withHome(async (home) => {
    await typed(home, [
      ['sho', /sho/],
      ['\t', /w /],
      ['port su', /su/],
      ['\t', /mmary /],
      ['all\r', /Number of available ports: 2[\s\S]*testpmd> /],
      ['stpo\r', /Command not found\r?\n.*did you mean: stop[\s\S]*testpmd> /],
      ['set burst\r', /Bad arguments\r?\n.*expected: set burst .*\(value\)[\s\S]*testpmd> /],
      ['quit\r', /Bye\.\.\./],
    ]);
  }));

test('Ctrl-C gives up a line, Ctrl-D quits, and lines are remembered for the next run', () =>
  withHome(async (home) => {
    await typed(home, [
      ['set burst 48\r', /set to 48[\s\S]*testpmd> /],
      ['nonsense', /nonsense/],
      ['\x03', /testpmd> /],
      ['\x04', /Bye\.\.\./],
    ]);
    assert.match(readFileSync(join(home, '.virtio-pmd-testpmd-history'), 'utf8'), /^set burst 48$/m);
    await typed(home, [
      ['\x1b[A', /set burst 48/],
      ['\r', /set to 48[\s\S]*testpmd> /],
      ['quit\r', /Bye\.\.\./],
    ]);
  }));

test.run();
