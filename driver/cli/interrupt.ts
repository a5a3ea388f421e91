/** Ctrl-C: the first asks for a clean stop, the second forces it. */

/** Exit statuses by signal, as shells have them: 128 and the signal's number. */
const STATUSES = { SIGHUP: 129, SIGINT: 130, SIGTERM: 143 } as const;

/** What a command looks at to know that it should end. */
export class Interrupt {
  readonly #controller = new AbortController();
  readonly #undo = new Set<() => void>();
  #status: number | undefined;

  /** Takes the signals over, as early as possible: before that a signal ends the process, which has nothing yet. */
  static install(): Interrupt {
    const interrupt = new Interrupt();
    for (const [signal, status] of Object.entries(STATUSES)) process.on(signal, () => interrupt.#receive(status));
    return interrupt;
  }

  /** Aborted by the first signal. */
  get signal(): AbortSignal {
    return this.#controller.signal;
  }

  /** The exit status of a command that was interrupted, or undefined when it was not. */
  get status(): number | undefined {
    return this.#status;
  }

  /** Asks for a clean stop as a signal does, without being one: the command has an exit status of its own. */
  stop(): void {
    this.#controller.abort();
  }

  /** Registers what has to be undone at once when the end is forced (synchronous, quick); returns how to forget it. */
  onForce(undo: () => void): () => void {
    this.#undo.add(undo);
    return () => this.#undo.delete(undo);
  }

  #receive(status: number): void {
    if (this.#status !== undefined) this.#force(status);
    this.#status = status;
    if (process.stderr.isTTY) process.stderr.write('\nvirtio-pmd: stopping (once more to force it)\n');
    this.#controller.abort();
  }

  /** Memory, sockets and devices of this process go with it; only names in the file system would stay. */
  #force(status: number): never {
    for (const undo of this.#undo) {
      try {
        undo();
      } catch {
        // The others still want their turn.
      }
    }
    process.exit(status);
  }
}
