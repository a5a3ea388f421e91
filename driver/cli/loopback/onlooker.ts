/** Who looks at a loopback run while it lasts. */

import type { Control, ControlChoice } from '../control/open-control.js';
import type { Interrupt } from '../interrupt.js';
import type { Stand } from './stand.js';

export interface Onlooker {
  /** Nobody else is to write to the terminal. */
  readonly ownsTerminal: boolean;
  /** The traffic begins. Fails where it cannot look, which ends the run. */
  begin(stand: Stand, queues: number): Promise<void>;
  /** The run is over, and what it stands on is closed next. Idempotent; never fails. */
  end(): Promise<void>;
}

/** A run that is over sooner is not worth a socket, nor the time that it takes to load what is behind it. */
const WORTHWHILE_MS = 500;

/** Lets others look over the control socket. */
export class ControlOnlooker implements Onlooker {
  readonly ownsTerminal = false;
  readonly #choice: ControlChoice;
  readonly #interrupt: Interrupt;
  #timer: NodeJS.Timeout | undefined;
  #opening: Promise<Control> | undefined;

  constructor(choice: ControlChoice, interrupt: Interrupt) {
    this.#choice = choice;
    this.#interrupt = interrupt;
  }

  async begin(stand: Stand, queues: number): Promise<void> {
    if (this.#choice === false) return;
    if (this.#choice === undefined) {
      this.#timer = setTimeout(() => void this.#open(stand, queues).catch(() => undefined), WORTHWHILE_MS).unref();
    } else {
      await this.#open(stand, queues);
    }
  }

  async end(): Promise<void> {
    clearTimeout(this.#timer);
    const control = await this.#opening?.catch(() => undefined);
    await control?.close();
  }

  async #open(stand: Stand, queues: number): Promise<void> {
    this.#opening = open(this.#choice, stand, queues, this.#interrupt);
    await this.#opening;
  }
}

async function open(choice: ControlChoice, stand: Stand, queues: number, interrupt: Interrupt): Promise<Control> {
  const [{ openControl }, { loopbackSnapshots }] = await Promise.all([
    import('../control/open-control.js'),
    import('./port-snapshots.js'),
  ]);
  return await openControl(choice, loopbackSnapshots(stand, queues), interrupt);
}
