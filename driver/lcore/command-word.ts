/** The word that a poll thread looks at once a loop, and the messages behind it. */

import type { MessagePort } from 'node:worker_threads';
import { receiveMessageOnPort } from 'node:worker_threads';
import { native } from '../../native/index.js';
import { ErrorCode, VirtioError } from '../errors.js';

/** A request of the control plane to a poll thread. */
export interface LcoreRequest {
  readonly id: number;
  readonly type: string;
  readonly payload: unknown;
}

/** An error on its way between threads: the fields that structured clone would drop. */
export interface ErrorData {
  readonly code: string;
  readonly message: string;
  readonly value: unknown;
  readonly requirement: string | undefined;
  readonly advice: string | undefined;
}

/** The answer to a request; exactly one for each. */
export type LcoreReply =
  | { readonly id: number; readonly ok: true; readonly result: unknown }
  | { readonly id: number; readonly ok: false; readonly error: ErrorData };

/**
 * What answers a type of request, on the poll thread, between two turns of its loop. With a promise the answer goes out when
 * that settles, for which the thread has to await something.
 */
export type RequestHandler = (payload: never) => unknown;

export function errorData(error: unknown): ErrorData {
  if (error instanceof VirtioError) {
    const { code, message, requirement, advice } = error;
    return { code, message, value: sendable(error.value), requirement, advice };
  }
  return {
    code: ErrorCode.WRONG_STATE,
    message: error instanceof Error ? (error.stack ?? error.message) : String(error),
    value: undefined,
    requirement: undefined,
    advice: undefined,
  };
}

/** The value as it can be sent between threads; its text where it cannot. */
function sendable(value: unknown): unknown {
  try {
    return structuredClone(value);
  } catch {
    return String(value);
  }
}

export const errorFrom = (data: ErrorData): VirtioError =>
  new VirtioError(data.code as ErrorCode, data.message, {
    value: data.value,
    ...(data.requirement === undefined ? {} : { requirement: data.requirement }),
    ...(data.advice === undefined ? {} : { advice: data.advice }),
  });

/** The poll thread's side: `requested` is looked at once a loop, and does all control work that waits. */
export class StopFlag {
  readonly #word: Int32Array;
  readonly #port: MessagePort;
  readonly #wakeFd: number;
  readonly #handlers = new Map<string, RequestHandler>();
  #seen = 0;
  #stopped = false;

  /** @param wakeFd an eventfd that is signalled after each change of the word; the control plane's */
  constructor(word: Int32Array, port: MessagePort, wakeFd: number) {
    this.#word = word;
    this.#port = port;
    this.#wakeFd = wakeFd;
  }

  /** Registers what answers a type of request. */
  onRequest(type: string, handler: RequestHandler): void {
    this.#handlers.set(type, handler);
  }

  /** Whether the thread should end its loop. Answers requests first, when there are any. */
  get requested(): boolean {
    if (Atomics.load(this.#word, 0) !== this.#seen) this.#serve();
    return this.#stopped;
  }

  /** Sleeps until a request comes, at most `milliseconds`. For idle loops. */
  sleep(milliseconds: number): void {
    Atomics.wait(this.#word, 0, this.#seen, milliseconds);
  }

  /**
   * Sleeps until one of these descriptors can be read or a request comes, at most `milliseconds`.
   *
   * @param fds the first is filled in here; negative ones count for nothing
   */
  sleepOn(fds: Int32Array, milliseconds: number): void {
    // A change from here on signals the eventfd, and ends the sleep.
    if (Atomics.load(this.#word, 0) !== this.#seen) return;
    fds[0] = this.#wakeFd;
    if (native.waitReadable(fds, milliseconds)) native.drainEventFd(this.#wakeFd);
  }

  #serve(): void {
    // Read before the messages: one that comes after this load changes the word again.
    this.#seen = Atomics.load(this.#word, 0);
    for (;;) {
      const received = receiveMessageOnPort(this.#port) as { message: LcoreRequest } | undefined;
      if (received === undefined) return;
      const reply = this.#answer(received.message);
      if (reply instanceof Promise) void reply.then((later) => this.#reply(later));
      else this.#reply(reply);
    }
  }

  #reply(reply: LcoreReply): void {
    try {
      this.#port.postMessage(reply);
    } catch (error) {
      // A result that cannot be sent is an error of its request, not of the thread.
      this.#port.postMessage({ id: reply.id, ok: false, error: errorData(error) } satisfies LcoreReply);
    }
  }

  #answer({ id, type, payload }: LcoreRequest): LcoreReply | Promise<LcoreReply> {
    if (type === 'stop') {
      this.#stopped = true;
      return { id, ok: true, result: undefined };
    }
    try {
      const handler = this.#handlers.get(type);
      if (handler === undefined)
        throw new VirtioError(ErrorCode.UNSUPPORTED, `a poll thread does not know the request ${type}`);
      const result = handler(payload as never);
      if (!(result instanceof Promise)) return { id, ok: true, result };
      return result.then(
        (settled: unknown): LcoreReply => ({ id, ok: true, result: settled }),
        (error: unknown): LcoreReply => ({ id, ok: false, error: errorData(error) }),
      );
    } catch (error) {
      return { id, ok: false, error: errorData(error) };
    }
  }
}
