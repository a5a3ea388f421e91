/** `virtio-pmd top --loopback`: traffic of this process' own, looked at while it runs. */

import { CommanderError } from 'commander';
import { wrongUsage } from '../failure.js';
import type { Interrupt } from '../interrupt.js';
import { loopbackCommand } from '../loopback/command.js';
import type { Onlooker } from '../loopback/onlooker.js';
import type { LoopbackOptions } from '../loopback/options.js';
import type { Stand } from '../loopback/stand.js';
import type { TopOrder } from './options.js';
import { show, takesTerminal } from './show.js';

/** Until somebody quits: longer than a timer can wait is no longer than that. */
const FOREVER_MS = 1e9;

/** Runs a loopback with the options behind `--`; its table and its exit status are those of `virtio-pmd loopback`. */
export async function showLoopback(order: TopOrder, interrupt: Interrupt): Promise<number> {
  let status = 0;
  const run = async (options: LoopbackOptions): Promise<number> => {
    const { loopback } = await import('../loopback/loopback.js');
    const isEndless = options.packets === undefined && options.duration === undefined;
    const lasting = isEndless ? { ...options, duration: FOREVER_MS } : options;
    return await loopback(lasting, interrupt, new ViewOnlooker(order, interrupt));
  };
  const finish = (value: number): void => {
    status = value;
  };
  const command = loopbackCommand(interrupt, finish, run)
    .exitOverride()
    .allowExcessArguments(false)
    .configureOutput({ outputError: () => undefined });
  try {
    await command.parseAsync([...(order.loopbackOptions ?? [])], { from: 'user' });
  } catch (error) {
    if (!(error instanceof CommanderError) || error.exitCode === 0) throw error;
    throw wrongUsage(error.message.replace(/^error: /, ''), 'virtio-pmd loopback');
  }
  return status;
}

/** The view of a run: it ends with the run, and the run with it. */
class ViewOnlooker implements Onlooker {
  readonly ownsTerminal: boolean;
  readonly #order: TopOrder;
  readonly #interrupt: Interrupt;
  #end: (() => void) | undefined;
  #shown: Promise<void> = Promise.resolve();

  constructor(order: TopOrder, interrupt: Interrupt) {
    this.#order = order;
    this.#interrupt = interrupt;
    this.ownsTerminal = takesTerminal(order);
  }

  async begin(stand: Stand, queues: number): Promise<void> {
    const { loopbackSnapshots } = await import('../loopback/port-snapshots.js');
    const take = loopbackSnapshots(stand, queues);
    const over = new Promise<void>((resolve) => {
      this.#end = resolve;
    });
    const source = { take: async () => take(), over, close: () => undefined };
    // The view has ended, or cannot go on: the run is told to end, and says what became of it.
    this.#shown = show(source, this.#order, this.#interrupt.signal).then(
      () => this.#interrupt.stop(),
      () => this.#interrupt.stop(),
    );
  }

  async end(): Promise<void> {
    this.#end?.();
    await this.#shown;
  }
}
