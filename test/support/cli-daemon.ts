/** `virtio-pmd backend` as a test's daemon: started, listened to event by event, and stopped. */

import { setTimeout as sleep } from 'node:timers/promises';

import * as assert from 'uvu/assert';

import { type CliEnd, type CliOptions, type RunningCli, startCli } from './cli.js';

/** One line of `--json`. */
export interface DaemonEvent {
  readonly event: string;
  readonly t: number;
  readonly connection?: number;
  readonly socket?: string;
  readonly [name: string]: unknown;
}

const EVENT_MS = 30_000;

export class CliDaemon {
  readonly cli: RunningCli;

  private constructor(cli: RunningCli) {
    this.cli = cli;
  }

  /** Starts `virtio-pmd backend --json ARGS…`; resolves when it has said `event`. */
  static async start(args: readonly string[], options: CliOptions = {}, event = 'listening'): Promise<CliDaemon> {
    const daemon = new CliDaemon(startCli(['backend', '--json', ...args], options));
    // The metrics listen before the sockets do.
    const sockets = args.filter((arg) => arg.startsWith('--socket-path')).length;
    try {
      await daemon.waitFor((each) => each.event === event, event);
      if (event === 'listening' && sockets > 0 && !args.includes('--client')) {
        await daemon.waitFor(
          () => daemon.all(event).filter((each) => 'socket' in each).length >= sockets,
          'all sockets',
        );
      }
    } catch (error) {
      daemon.cli.kill('SIGKILL');
      throw error;
    }
    return daemon;
  }

  /** What it said so far, whole lines. */
  get events(): DaemonEvent[] {
    const lines = this.cli.stdout().split('\n');
    return lines.slice(0, -1).map((line) => JSON.parse(line) as DaemonEvent);
  }

  /** Events of one kind. */
  all(event: string): DaemonEvent[] {
    return this.events.filter((each) => each.event === event);
  }

  /** Waits for the first event that `is` accepts, from number `from` on; returns it. */
  async waitFor(is: (event: DaemonEvent) => boolean, what: string, from = 0): Promise<DaemonEvent> {
    for (const deadline = performance.now() + EVENT_MS; ; ) {
      const found = this.events.slice(from).find(is);
      if (found !== undefined) return found;
      if (performance.now() > deadline) assert.unreachable(`no ${what} came:\n${this.cli.stdout()}`);
      const ended = await Promise.race([this.cli.done, sleep(10, undefined)]);
      if (ended !== undefined && !this.events.slice(from).some(is)) {
        assert.unreachable(`it ended with ${ended.status} before ${what}:\n${ended.stdout}${ended.stderr}`);
      }
    }
  }

  /** Ends it with a signal; sees that it ends well and leaves nothing. */
  async stop(signal: NodeJS.Signals = 'SIGTERM'): Promise<CliEnd> {
    this.cli.kill(signal);
    const end = await this.cli.done;
    assert.is(end.status, 0, `${end.status} ${end.signal}: ${end.stdout.slice(-2000)}${end.stderr}`);
    assert.is(end.stderr, '');
    assert.equal(end.left, []);
    return end;
  }
}

/** Starts a daemon, calls `use` with it, and ends it whatever happens; it has to end well where `use` did. */
export async function withDaemon(
  args: readonly string[],
  use: (daemon: CliDaemon) => Promise<void>,
  options: CliOptions = {},
): Promise<void> {
  const daemon = await CliDaemon.start(args, options);
  try {
    await use(daemon);
    await daemon.stop();
  } finally {
    daemon.cli.kill('SIGKILL');
  }
}
