/** Tells what happens, as lines for people or as JSON. */

import type { VirtioError } from '../../errors.js';
import { asVirtioError, printError } from '../failure.js';
import { print } from '../output.js';
import type { Connection, SocketEvent } from './connections.js';
import { describe, descriptionText } from './description.js';
import { eventLine } from './event-line.js';
import { type EventRecord, errorFields, eventRecord, record } from './event-record.js';
import type { BackendOptions } from './options.js';
import { Sampler } from './statistics.js';
import { statisticsTable, switchTable } from './statistics-table.js';
import type { SwitchView } from './switch-view.js';

/** What the daemon has to show. */
interface ReportSource {
  readonly connections: readonly Connection[];
  readonly switch?: SwitchView | undefined;
}

/** How long rings must have been left alone before they are described. */
const SETTLE_MS = 100;

export class Reporter {
  readonly #options: BackendOptions;
  /** What is said waits for what was said before. */
  #said: Promise<void> = Promise.resolve();
  #isBroken = false;
  #timer: NodeJS.Timeout | undefined;
  #onSignal: (() => void) | undefined;
  /** Connections whose rings have changed, each with what describes it when no more changes. */
  readonly #changed = new Map<Connection, NodeJS.Timeout>();

  constructor(options: BackendOptions) {
    this.#options = options;
  }

  take(event: SocketEvent): void {
    this.#say(eventRecord(event), () => eventLine(event));
    const { connection } = event;
    if (this.#options.describe !== true || connection === undefined || event.event.type !== 'vring') return;
    // Rings change one after the other; one description says it of all.
    clearTimeout(this.#changed.get(connection));
    this.#changed.set(
      connection,
      setTimeout(() => this.#describe(connection), SETTLE_MS),
    );
  }

  /** The metrics are there. */
  serving(url: string): void {
    this.#say(record('listening', { metrics: url }), () => `metrics at ${url}`);
  }

  /** What ends the daemon; people get it on standard error. */
  failed(error: VirtioError): void {
    if (this.#options.json === true) this.#print(`${JSON.stringify(record('error', errorFields(error)))}\n`);
  }

  /** From now on tells of the connections what was asked for, by an option or by a signal. */
  watch(source: ReportSource): void {
    const { stats } = this.#options;
    if (stats !== undefined) {
      const sampler = new Sampler();
      this.#timer = setInterval(() => this.#statistics(source, sampler), stats);
    }
    this.#onSignal = () => {
      if (source.connections.length === 0) this.#say(record('describe', {}), () => 'no front-end is connected');
      for (const connection of source.connections) this.#describe(connection);
    };
    // As early as may be: until somebody listens for it, this signal makes Node wait for a debugger.
    process.on('SIGUSR1', this.#onSignal);
  }

  /** Idempotent. */
  unwatch(): void {
    clearInterval(this.#timer);
    if (this.#onSignal !== undefined) process.off('SIGUSR1', this.#onSignal);
    for (const timer of this.#changed.values()) clearTimeout(timer);
    this.#changed.clear();
  }

  /** Resolves when everything is out. */
  async flushed(): Promise<void> {
    await this.#said;
  }

  #describe(connection: Connection): void {
    this.#changed.delete(connection);
    const description = describe(connection);
    if (description === undefined) return;
    if (this.#options.json === true) this.#print(`${JSON.stringify(record('describe', { ...description }))}\n`);
    else this.#print(descriptionText(description));
  }

  #statistics(source: ReportSource, sampler: Sampler): void {
    const { seconds, connections } = sampler.sample(source.connections);
    const joined = source.switch?.sample();
    if (this.#options.json === true) {
      const fields = { seconds: Number(seconds.toFixed(3)), connections, ...(joined && { switch: joined }) };
      this.#print(`${JSON.stringify(record('stats', fields))}\n`);
      return;
    }
    this.#print(statisticsTable(connections));
    if (joined !== undefined) this.#print(switchTable(joined));
  }

  #say(event: EventRecord, line: () => string): void {
    this.#print(this.#options.json === true ? `${JSON.stringify(event)}\n` : `${line()}\n`);
  }

  /** A guest's packets do not depend on whether somebody can read what is said of them: a failure is told once. */
  #print(text: string | Promise<string>): void {
    this.#said = this.#said
      .then(async () => print(await text))
      .catch((error: unknown) => {
        if (!this.#isBroken) printError(asVirtioError(error));
        this.#isBroken = true;
      });
  }
}
