/** The streams of a forwarding lcore and their engines. */

import { Burst, type PacketPool } from '../../../thread.js';
import { createEngine } from './engines/create-engine.js';
import type { EngineContext } from './engines/engine-maker.js';
import { guardedEngine } from './guarded-engine.js';
import type { LcorePorts } from './lcore-ports.js';
import type { ForwardOrder, QueueToFlush } from './lcore-protocol.js';
import { ObservedRxQueue, ObservedTxQueue } from './observed-queue.js';
import { PacketDump } from './packet-dump.js';
import type { ForwardEngine, Stream } from './stream.js';

/** How often queues are emptied before forwarding starts, and for how long each at most: about as long as testpmd does. */
const FLUSH_ROUNDS = 2;
const FLUSH_MS = 2;
const FLUSH_PAUSE_MS = 10;
const FLUSH_BURST = 512;

export class LcoreStreams {
  readonly #pool: PacketPool;
  readonly #ports: LcorePorts;
  readonly #lcore: number;
  readonly #print: EngineContext['print'];
  #order: ForwardOrder | undefined;
  #engines: readonly ForwardEngine[] = [];

  constructor(pool: PacketPool, ports: LcorePorts, lcore: number, print: EngineContext['print']) {
    this.#pool = pool;
    this.#ports = ports;
    this.#lcore = lcore;
    this.#print = print;
  }

  get isForwarding(): boolean {
    return this.#order !== undefined;
  }

  /** Forwards from now on as `order` has it; where that cannot be, what forwards goes on. */
  forward(order: ForwardOrder): void {
    const engines = this.#enginesOf(order);
    this.halt();
    this.#engines = engines;
    this.#order = order;
  }

  /** Makes the engines anew: their queues are others. */
  renew(): void {
    const order = this.#order;
    if (order === undefined) return;
    this.halt();
    this.forward(order);
  }

  halt(): void {
    this.#order = undefined;
    for (const engine of this.#engines) engine.close?.();
    this.#engines = [];
  }

  transmitFirst(order: ForwardOrder): void {
    for (const engine of this.#enginesOf({ ...order, settings: { ...order.settings, mode: 'txonly' } })) {
      engine.forward();
      engine.close?.();
    }
  }

  /** One turn of each engine; returns how many packets moved. */
  turn(): number {
    const engines = this.#engines;
    let moved = 0;
    for (let index = 0; index < engines.length; index++) moved += engines[index]!.forward();
    return moved;
  }

  /** Throws away what came before forwarding starts; a queue that never ends is left. */
  flush(queues: readonly QueueToFlush[]): void {
    const burst = new Burst(this.#pool, FLUSH_BURST);
    for (let round = 0; round < FLUSH_ROUNDS; round++) {
      for (const { port, queue } of queues) {
        const rx = this.#ports.rxQueue(port, queue);
        for (const end = performance.now() + FLUSH_MS; rx.receive(burst) > 0 && performance.now() < end; ) burst.free();
        burst.free();
      }
      for (const end = performance.now() + FLUSH_PAUSE_MS; performance.now() < end; );
    }
  }

  #enginesOf({ streams, settings }: ForwardOrder): ForwardEngine[] {
    const context = { pool: this.#pool, settings, lcore: this.#lcore, print: this.#print };
    return streams.map(({ setup, counters }) => {
      const { rxPort, rxQueue, txPort, txQueue } = setup;
      let rx = this.#ports.rxQueue(rxPort, rxQueue);
      let tx = this.#ports.txQueue(txPort, txQueue);
      // As testpmd has it: 1 shows what is received, 2 what is sent, more shows both.
      const { verbose } = settings;
      const dumpOf = (port: number) => new PacketDump(this.#pool, port, (text) => this.#print(text));
      if (verbose === 1 || verbose > 2) rx = new ObservedRxQueue(rx, rxQueue, dumpOf(rxPort));
      if (verbose >= 2) tx = new ObservedTxQueue(tx, txQueue, dumpOf(txPort));
      const burst = new Burst(this.#pool, settings.burst);
      const stream: Stream = { setup, rx, tx, burst, counters: new Float64Array(counters) };
      const tell = (error: unknown): void =>
        this.#print(`lcore ${this.#lcore}: ${settings.mode} dropped packets of port ${rxPort}: ${error}\n`, true);
      return guardedEngine(createEngine(stream, context), stream, tell);
    });
  }
}
