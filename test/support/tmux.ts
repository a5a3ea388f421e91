/** A terminal with a shell in it, as a user has one: keys go in, the screen is looked at (tmux). */

import { spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import * as assert from 'uvu/assert';
import { PATIENCE_MS } from './until.js';

const PROMPT = '$ ';

export class Terminal {
  readonly #folder = mkdtempSync(join(tmpdir(), 'tmux-'));

  private constructor(columns: number, rows: number, environment: Readonly<Record<string, string>>) {
    const variables = Object.entries({ LC_ALL: 'C.UTF-8', PS1: PROMPT, ...environment }).map(
      ([name, value]) => `${name}=${value}`,
    );
    const shell = ['env', ...variables, 'bash', '--norc', '--noprofile', '-i'];
    this.#tmux('-f', '/dev/null', 'new-session', '-d', '-x', String(columns), '-y', String(rows), ...shell);
  }

  /** Opens one of this size, with a shell that has these variables. */
  static async open(
    columns: number,
    rows: number,
    environment: Readonly<Record<string, string>> = {},
  ): Promise<Terminal> {
    const terminal = new Terminal(columns, rows, environment);
    try {
      await terminal.shows(/^\$/m);
    } catch (error) {
      terminal.close();
      throw error;
    }
    return terminal;
  }

  /** Its lines, without blanks at their ends. */
  get lines(): string[] {
    return this.#tmux('capture-pane', '-p').split('\n').slice(0, -1);
  }

  /** Keys by tmux' names: `q`, `Down`, `Enter`, `C-c`. */
  press(...keys: readonly string[]): void {
    this.#tmux('send-keys', ...keys);
  }

  /** Has the shell run it. */
  type(command: string): void {
    this.#tmux('send-keys', '-l', command);
    this.press('Enter');
  }

  resize(columns: number, rows: number): void {
    this.#tmux('resize-window', '-x', String(columns), '-y', String(rows));
  }

  /** Waits until the screen matches; returns its lines. */
  async shows(pattern: RegExp): Promise<string[]> {
    return await this.until((lines) => pattern.test(lines.join('\n')), String(pattern));
  }

  /** Waits until the lines are as they should be; returns them. */
  async until(is: (lines: readonly string[]) => boolean, what: string): Promise<string[]> {
    for (const deadline = performance.now() + PATIENCE_MS; ; await sleep(30)) {
      const { lines } = this;
      if (is(lines)) return lines;
      if (performance.now() > deadline) assert.unreachable(`the terminal never showed ${what}:\n${lines.join('\n')}`);
    }
  }

  /** Ends the shell and what runs in it. Idempotent. */
  close(): void {
    spawnSync('tmux', ['-S', this.#socket, 'kill-server']);
    rmSync(this.#folder, { recursive: true, force: true });
  }

  get #socket(): string {
    return join(this.#folder, 'tmux.sock');
  }

  #tmux(...args: readonly string[]): string {
    const { status, stdout, stderr } = spawnSync('tmux', ['-S', this.#socket, ...args], { encoding: 'utf8' });
    assert.is(status, 0, `tmux ${args.join(' ')}: ${stderr}`);
    return stdout;
  }
}
