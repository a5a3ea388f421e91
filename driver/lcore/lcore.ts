/** A poll thread, seen from the control plane. */

import { MessageChannel, type MessagePort, Worker } from 'node:worker_threads';
import { native } from '../../native/index.js';
import { ErrorCode, VirtioError } from '../errors.js';
import { type ErrorData, errorFrom, type LcoreReply, type LcoreRequest } from './command-word.js';

export interface LcoreOptions {
  /** Module whose export `lcoreMain` the thread runs. */
  readonly entry: URL;
  /** Processor to pin the thread to; wherever the system likes when not given. */
  readonly cpu?: number | undefined;
  /** Name of the thread, for debuggers; its first 15 characters are what ps, top and perf show. */
  readonly name: string;
  /** Handed to `lcoreMain`. */
  readonly data?: unknown;
  /** How long the thread may take to answer: a loop turn is microseconds, a starved machine is seconds. Default 30 s. */
  readonly answerTimeoutMs?: number | undefined;
}

/** What the thread gets to start with. */
export interface LcoreWorkerData {
  readonly entry: string;
  readonly cpu: number | undefined;
  readonly name: string;
  readonly data: unknown;
  readonly word: SharedArrayBuffer;
  /** Signalled after each change of the word, for a thread that sleeps on descriptors. */
  readonly wakeFd: number;
  readonly port: MessagePort;
}

/** What the thread says by itself. */
export type LcoreNotice =
  | { readonly type: 'ready' }
  | { readonly type: 'event'; readonly event: unknown }
  | { readonly type: 'finished'; readonly result: unknown }
  | { readonly type: 'failed'; readonly error: ErrorData };

const ANSWER_TIMEOUT_MS = 30_000;

interface Waiting {
  readonly resolve: (result: unknown) => void;
  readonly reject: (error: Error) => void;
  readonly timer: NodeJS.Timeout;
}

/** A worker thread that runs `lcoreMain` of a module, pinned when asked, and answers requests between loop turns. */
export class Lcore {
  /** Resolves to what `lcoreMain` returned; rejects when it threw or the thread died. */
  readonly finished: Promise<unknown>;
  /** Called with what the thread sends through `LcoreContext.emit`. */
  onEvent: ((event: unknown) => void) | undefined;
  readonly #worker: Worker;
  readonly #word: Int32Array;
  readonly #wakeFd: number;
  readonly #port: MessagePort;
  readonly #answerTimeoutMs: number;
  readonly #waiting = new Map<number, Waiting>();
  #nextId = 1;
  #over = false;

  private constructor(options: LcoreOptions, onReady: () => void) {
    const word = new SharedArrayBuffer(4);
    const { port1, port2 } = new MessageChannel();
    this.#word = new Int32Array(word);
    this.#wakeFd = native.createEventFd(0);
    this.#port = port1;
    this.#answerTimeoutMs = options.answerTimeoutMs ?? ANSWER_TIMEOUT_MS;
    const workerData: LcoreWorkerData = {
      entry: options.entry.href,
      cpu: options.cpu,
      name: options.name,
      data: options.data,
      word,
      wakeFd: this.#wakeFd,
      port: port2,
    };
    try {
      this.#worker = new Worker(new URL('./worker.js', import.meta.url), {
        name: options.name,
        workerData,
        transferList: [port2],
      });
    } catch (error) {
      // What cannot be sent between threads: there is nobody who would close these.
      native.closeFd(this.#wakeFd);
      port1.close();
      throw error;
    }
    port1.on('message', (reply: LcoreReply) => this.#settle(reply));
    port1.unref();
    this.finished = new Promise((resolve, reject) => {
      this.#worker.on('message', (notice: LcoreNotice) => {
        if (notice.type === 'ready') onReady();
        else if (notice.type === 'event') this.onEvent?.(notice.event);
        else if (notice.type === 'finished') resolve(notice.result);
        else reject(errorFrom(notice.error));
      });
      this.#worker.on('error', reject);
      this.#worker.on('exit', (code) => {
        const gone = new VirtioError(ErrorCode.WRONG_STATE, `the poll thread ${options.name} has ended (exit ${code})`);
        this.#over = true;
        native.closeFd(this.#wakeFd);
        for (const [id] of this.#waiting) this.#fail(id, gone);
        this.#port.close();
        reject(gone); // does nothing when it finished before
      });
    });
    // Whoever cares awaits `finished`; nobody has to.
    this.finished.catch(() => undefined);
  }

  /** Starts a thread; resolves when its module is loaded and it is about to run. */
  static async start(options: LcoreOptions): Promise<Lcore> {
    let onReady: () => void = () => undefined;
    const ready = new Promise<void>((resolve) => {
      onReady = resolve;
    });
    const lcore = new Lcore(options, onReady);
    await Promise.race([ready, lcore.finished]);
    return lcore;
  }

  /** Whether the thread is still there. */
  get running(): boolean {
    return !this.#over;
  }

  /** Has the thread answer a request between two turns of its loop. Fails with what its handler threw. */
  request<T>(type: string, payload?: unknown): Promise<T> {
    if (this.#over) return Promise.reject(new VirtioError(ErrorCode.WRONG_STATE, 'the poll thread has ended'));
    const id = this.#nextId++;
    const message: LcoreRequest = { id, type, payload };
    return new Promise<T>((resolve, reject) => {
      const timer = setTimeout(() => {
        const seconds = this.#answerTimeoutMs / 1000;
        this.#fail(
          id,
          new VirtioError(ErrorCode.TIMEOUT, `a poll thread did not answer ${type} within ${seconds} s`, {
            advice: 'a poll loop must look at stop.requested every turn',
          }),
        );
      }, this.#answerTimeoutMs);
      this.#waiting.set(id, { resolve: resolve as (result: unknown) => void, reject, timer });
      this.#port.postMessage(message);
      this.#wake();
    });
  }

  /** Asks the loop to end and waits until the thread is gone. Idempotent. */
  async stop(): Promise<void> {
    if (this.#over) return;
    const exited = new Promise<void>((resolve) => this.#worker.once('exit', () => resolve()));
    // A thread that has finished by itself does not answer any more; its exit is awaited below.
    this.request('stop').catch(() => undefined);
    const timer = setTimeout(() => void this.#worker.terminate(), this.#answerTimeoutMs);
    await exited;
    clearTimeout(timer);
  }

  #wake(): void {
    Atomics.add(this.#word, 0, 1);
    Atomics.notify(this.#word, 0);
    native.signalEventFd(this.#wakeFd);
  }

  #settle(reply: LcoreReply): void {
    const waiting = this.#waiting.get(reply.id);
    if (waiting === undefined) return;
    if (!reply.ok) {
      this.#fail(reply.id, errorFrom(reply.error));
      return;
    }
    this.#waiting.delete(reply.id);
    clearTimeout(waiting.timer);
    waiting.resolve(reply.result);
  }

  #fail(id: number, error: Error): void {
    const waiting = this.#waiting.get(id);
    if (waiting === undefined) return;
    this.#waiting.delete(id);
    clearTimeout(waiting.timer);
    waiting.reject(error);
  }
}
