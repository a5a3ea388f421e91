/** QEMU's control connection: commands and events as lines of JSON. */

import type { Socket } from 'node:net';
import { createInterface } from 'node:readline';

const TIMEOUT_MS = 20_000;

export interface QmpEvent {
  readonly event: string;
  readonly data?: Readonly<Record<string, unknown>>;
}

interface QmpAnswer {
  readonly return?: unknown;
  readonly error?: { readonly class: string; readonly desc: string };
}

export class Qmp {
  readonly #socket: Socket;
  readonly #waiting: { resolve(value: unknown): void; reject(error: Error): void }[] = [];
  readonly #listeners = new Set<(event: QmpEvent) => void>();
  readonly #ready: Promise<unknown>;
  /** Every event so far. */
  readonly events: QmpEvent[] = [];

  constructor(socket: Socket) {
    this.#socket = socket;
    socket.on('error', () => {});
    socket.on('close', () => {
      for (const { reject } of this.#waiting.splice(0)) reject(new Error('QEMU has closed its control connection'));
    });
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

  /** Resolves with the next event of that name. */
  next(name: string, timeoutMs = TIMEOUT_MS): Promise<QmpEvent> {
    return new Promise((resolve, reject) => {
      const listen = (event: QmpEvent): void => {
        if (event.event !== name) return;
        clearTimeout(timer);
        this.#listeners.delete(listen);
        resolve(event);
      };
      const timer = setTimeout(() => {
        this.#listeners.delete(listen);
        reject(new Error(`QEMU reported no ${name} within ${timeoutMs} ms`));
      }, timeoutMs);
      this.#listeners.add(listen);
    });
  }

  #send(command: string, args: Readonly<Record<string, unknown>>): Promise<unknown> {
    return new Promise((resolve, reject) => {
      const timer = setTimeout(() => reject(new Error(`QEMU did not answer ${command}`)), TIMEOUT_MS);
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

  #line(message: QmpEvent & QmpAnswer): void {
    if (message.event !== undefined) {
      this.events.push(message);
      for (const listen of this.#listeners) listen(message);
    } else if (message.error !== undefined) {
      this.#waiting.shift()?.reject(new Error(`QEMU: ${message.error.class}: ${message.error.desc}`));
    } else if (message.return !== undefined) {
      this.#waiting.shift()?.resolve(message.return);
    }
  }
}
