/** QEMU's control connection: commands and events as lines of JSON. */

import type { Socket } from 'node:net';
import { createInterface } from 'node:readline';

/** Generous: a machine under load may not come to it. */
const TIMEOUT_MS = 60_000;

export interface QmpEvent {
  readonly event: string;
  /** When it happened, by the host's clock. */
  readonly timestamp: { readonly seconds: number; readonly microseconds: number };
  readonly data?: Readonly<Record<string, unknown>>;
}

interface QmpAnswer {
  readonly return?: unknown;
  readonly error?: { readonly class: string; readonly desc: string };
}

/** Somebody who waits for an event. */
interface Listener {
  hear(event: QmpEvent): void;
  fail(error: Error): void;
}

/** Milliseconds since 1970 at which an event happened. */
export const timeOf = ({ timestamp }: QmpEvent): number => timestamp.seconds * 1000 + timestamp.microseconds / 1000;

export class Qmp {
  readonly #socket: Socket;
  readonly #context: () => string;
  readonly #waiting: { resolve(value: unknown): void; reject(error: Error): void }[] = [];
  readonly #listeners = new Set<Listener>();
  #isClosed = false;
  readonly #ready: Promise<unknown>;
  /** Every event so far. */
  readonly events: QmpEvent[] = [];

  /** `context` says what QEMU printed, for errors. */
  constructor(socket: Socket, context: () => string = () => '') {
    this.#socket = socket;
    this.#context = context;
    // Whatever goes wrong with it closes it.
    socket.on('error', () => {});
    socket.on('close', () => this.#close());
    const lines = createInterface({ input: socket });
    lines.on('line', (line) => this.#line(JSON.parse(line)));
    lines.on('error', () => {});
    this.#ready = this.#send('qmp_capabilities', {});
    this.#ready.catch(() => {});
  }

  /** Runs a command and resolves to its answer. @throws Error with QEMU's description */
  async execute<T = unknown>(command: string, args: Readonly<Record<string, unknown>> = {}): Promise<T> {
    await this.#ready;
    return (await this.#send(command, args)) as T;
  }

  /** Resolves with the next event of that name. @throws Error when none comes in time, or QEMU ends */
  next(name: string, timeoutMs = TIMEOUT_MS): Promise<QmpEvent> {
    return new Promise((resolve, reject) => {
      if (this.#isClosed) return reject(this.#closed());
      const done = (): void => {
        clearTimeout(timer);
        this.#listeners.delete(listener);
      };
      const listener: Listener = {
        hear: (event) => {
          if (event.event !== name) return;
          done();
          resolve(event);
        },
        fail: (error) => {
          done();
          reject(error);
        },
      };
      const late = (): void => listener.fail(this.#error(`QEMU reported no ${name} within ${timeoutMs} ms`));
      const timer = setTimeout(late, timeoutMs);
      this.#listeners.add(listener);
    });
  }

  #send(command: string, args: Readonly<Record<string, unknown>>): Promise<unknown> {
    return new Promise((resolve, reject) => {
      if (this.#isClosed) return reject(this.#closed());
      const late = (): void => reject(this.#error(`QEMU did not answer ${command} within ${TIMEOUT_MS} ms`));
      const timer = setTimeout(late, TIMEOUT_MS);
      this.#waiting.push({
        resolve: (value) => {
          clearTimeout(timer);
          resolve(value);
        },
        reject: (error) => {
          clearTimeout(timer);
          reject(error);
        },
      });
      this.#socket.write(`${JSON.stringify({ execute: command, arguments: args })}\n`);
    });
  }

  #close(): void {
    this.#isClosed = true;
    for (const { reject } of this.#waiting.splice(0)) reject(this.#closed());
    for (const { fail } of [...this.#listeners]) fail(this.#closed());
  }

  #closed(): Error {
    return this.#error('QEMU has closed its control connection');
  }

  #error(what: string): Error {
    return new Error(`${what}\n${this.#context()}`.trim());
  }

  #line(message: QmpEvent & QmpAnswer): void {
    if (message.event !== undefined) {
      this.events.push(message);
      for (const { hear } of [...this.#listeners]) hear(message);
    } else if (message.error !== undefined) {
      this.#waiting.shift()?.reject(new Error(`QEMU: ${message.error.class}: ${message.error.desc}`));
    } else if (message.return !== undefined) {
      this.#waiting.shift()?.resolve(message.return);
    }
  }
}
