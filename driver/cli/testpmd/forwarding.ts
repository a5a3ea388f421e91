/** Forwarding, from the control side: starts the engines on their lcores, stops them, and knows what they counted. */

import { readFileSync } from 'node:fs';
import { setImmediate as nextTurn } from 'node:timers/promises';
import type { EthernetDevice } from './devices/ethernet-device.js';
import type { ForwardPlan } from './forward-plan.js';
import { ForwardingLcores, type ForwardingOptions } from './forwarding-lcores.js';
import type { ForwardSettings } from './lcore/forward-settings.js';
import { type ForwardOrder, LcoreRequestType, type QueueToFlush } from './lcore/lcore-protocol.js';
import { BurstCounter, type StreamSetup } from './lcore/stream.js';

export interface StartOptions {
  readonly devices: ReadonlyMap<number, EthernetDevice>;
  /** Throws away what the receive queues have; testpmd does, but for `--no-flush-rx`. */
  readonly flush: boolean;
  /** Bursts that each stream sends before it forwards: `start tx_first`. */
  readonly txFirst: number;
  /** Whether both queues of a stream are started; the others stand still. */
  readonly isEnabled?: ((stream: StreamSetup) => boolean) | undefined;
  /** Called when the queues are empty, before the first packet moves: for whoever counts from here. */
  readonly onReady?: (() => void) | undefined;
}

/** What a stream has counted since forwarding started, or since the last reset. */
export interface StreamStatistics {
  readonly setup: StreamSetup;
  /** `StreamCounter`s; `BurstCounter`s behind them, zeroes without `record-burst-stats`. */
  readonly counters: Float64Array;
}

interface CountedStream {
  readonly setup: StreamSetup;
  /** Written by an lcore. */
  readonly counters: Float64Array;
  /** What was in them at the last reset. */
  readonly base: Float64Array;
}

export class Forwarding {
  readonly #lcores: ForwardingLcores;
  #plan: ForwardPlan | undefined;
  #isEnabled: (stream: StreamSetup) => boolean = () => true;
  #streams: readonly CountedStream[] = [];
  #isRunning = false;
  #clockMHz: number | undefined;

  constructor(options: ForwardingOptions) {
    this.#lcores = new ForwardingLcores(options);
  }

  get isRunning(): boolean {
    return this.#isRunning;
  }

  /** The plan of this run of forwarding, or of the last one. */
  get plan(): ForwardPlan | undefined {
    return this.#plan;
  }

  /** By the numbers of the streams. */
  get streams(): readonly StreamStatistics[] {
    return this.#streams.map(statisticsOf);
  }

  /** Millions a second that the processor's clock turns, in which busy cycles are counted. */
  get clockMHz(): number {
    this.#clockMHz ??= readClockMHz();
    return this.#clockMHz;
  }

  /** Starts forwarding; the caller has seen to it that the ports are started and nothing is forwarded yet. */
  async start(plan: ForwardPlan, settings: ForwardSettings, options: StartOptions): Promise<void> {
    this.#plan = plan;
    this.#isEnabled = options.isEnabled ?? (() => true);
    this.#streams = plan.streams.map((setup) => ({
      setup,
      counters: new Float64Array(new SharedArrayBuffer(BurstCounter.END * Float64Array.BYTES_PER_ELEMENT)),
      base: new Float64Array(BurstCounter.END),
    }));
    // Commands that come meanwhile find it running.
    this.#isRunning = true;
    try {
      await this.#lcores.attach(plan, options.devices);
      if (options.flush) await this.#flush();
      options.onReady?.();
      for (let burst = 0; burst < options.txFirst; burst++)
        await this.#order(LcoreRequestType.TRANSMIT_FIRST, settings);
      await this.#order(LcoreRequestType.FORWARD, settings);
    } catch (error) {
      // Some lcores may forward already.
      await this.stop().catch(() => undefined);
      throw error;
    }
  }

  /** Has what runs take over other settings: the size of bursts, what is shown of packets, addresses. */
  async update(settings: ForwardSettings): Promise<void> {
    if (this.#isRunning) await this.#order(LcoreRequestType.FORWARD, settings);
  }

  /** Stops forwarding, even where an lcore fails to. The queues stay where they are. */
  async stop(): Promise<void> {
    if (!this.#isRunning) return;
    try {
      await this.#lcores.halt();
    } finally {
      // What lcores showed before they halted came on another way: it is here after this turn.
      await nextTurn();
      this.#isRunning = false;
    }
  }

  resetStatistics(): void {
    for (const { counters, base } of this.#streams) base.set(counters);
  }

  /** Takes a port's queues off the lcores: before the port is stopped, configured or closed. */
  async release(port: number): Promise<void> {
    await this.#lcores.release(port);
  }

  /**
   * Has the lcores load a `QueueObserverModule` and put its observer around a port's queues, in the place of another;
   * undefined takes it away. While packets are forwarded, too.
   */
  async observe(port: number, observer: { readonly module: URL; readonly data: unknown } | undefined): Promise<void> {
    await this.#lcores.observe(port, observer && { module: observer.module.href, data: observer.data });
  }

  /** Stops forwarding and ends the threads. */
  async close(): Promise<void> {
    try {
      await this.stop();
    } finally {
      await this.#lcores.close();
    }
  }

  /** Sends each lcore an order for its streams, and waits until all have taken it. */
  async #order(type: string, settings: ForwardSettings): Promise<void> {
    await this.#eachLcore((lcore, setups) => {
      const streams = setups.map((setup) => ({
        setup,
        counters: this.#streams[setup.index]!.counters.buffer as SharedArrayBuffer,
      }));
      return this.#lcores.request(lcore, type, { streams, settings } satisfies ForwardOrder);
    });
  }

  async #flush(): Promise<void> {
    await this.#eachLcore((lcore, setups) => {
      const queues = setups.map(({ rxPort, rxQueue }): QueueToFlush => ({ port: rxPort, queue: rxQueue }));
      return this.#lcores.request(lcore, LcoreRequestType.FLUSH, queues);
    });
  }

  async #eachLcore(action: (lcore: number, streams: readonly StreamSetup[]) => Promise<unknown>): Promise<void> {
    const lcores = this.#plan?.lcores ?? [];
    await Promise.all(lcores.map(({ lcore, streams }) => action(lcore, streams.filter(this.#isEnabled))));
  }
}

const statisticsOf = ({ setup, counters, base }: CountedStream): StreamStatistics => ({
  setup,
  counters: counters.map((count, counter) => count - base[counter]!),
});

/** As the kernel tells it; 0 where it does not. */
function readClockMHz(): number {
  const found = /^cpu MHz\s*: ([\d.]+)/m.exec(readFileSync('/proc/cpuinfo', 'utf8'));
  return Math.round(Number(found?.[1] ?? 0));
}
