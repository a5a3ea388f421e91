/** The modules of ports that a poll thread has. */

import { ErrorCode, VirtioError } from '../errors.js';
import type { BackendPortModule } from './ports/backend-port.js';

interface Wanted {
  readonly module: string;
  readonly resolve: () => void;
  readonly reject: (error: unknown) => void;
}

/** Loads modules between two stretches of polling: while a thread polls, it has no event loop to load with. */
export class PortModules {
  readonly #loaded = new Map<string, BackendPortModule>();
  #wanted: Wanted[] = [];

  /** Whether a module is waited for: then the poll loop ends, for `loadWanted`. Looked at once a turn. */
  get areWanted(): boolean {
    return this.#wanted.length > 0;
  }

  /** Resolves when `loadWanted` has loaded the module. */
  want(module: string): Promise<void> {
    return new Promise((resolve, reject) => {
      this.#wanted.push({ module, resolve, reject });
    });
  }

  /** Loads what is waited for. Never rejects: whoever waits is told. */
  async loadWanted(): Promise<void> {
    const wanted = this.#wanted;
    this.#wanted = [];
    for (const { module, resolve, reject } of wanted) await this.load(module).then(resolve, reject);
  }

  async load(module: string): Promise<void> {
    if (!this.#loaded.has(module)) this.#loaded.set(module, (await import(module)) as BackendPortModule);
  }

  /** @throws VirtioError INVALID_ARGUMENT for one that was not loaded */
  of(module: string): BackendPortModule {
    const found = this.#loaded.get(module);
    if (found !== undefined) return found;
    throw new VirtioError(
      ErrorCode.INVALID_ARGUMENT,
      `the port module ${module} was not loaded when the thread started`,
      {
        value: module,
        advice: 'name it in the option `ports` of the thread',
      },
    );
  }
}
