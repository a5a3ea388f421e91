/** The device's end of the control queue (virtio 1.2 §5.1.6.5), on the poll thread. */

import type { CopyDirection, CopyEngine } from '../../native/index.js';
import type { DeviceRing } from '../ring/ends.js';
import { ControlAck } from '../spec/control.js';
import type { Caller } from './caller.js';
import { ControlChain, NOTHING_MISSING } from './control-chain.js';
import type { ControlCommands } from './control-commands.js';
import type { JobSnapshot } from './ring-context.js';

/** Commands answered a turn. */
const CONTROL_BURST = 4;
/** Instead of a length: the chain waits for a translation. */
const WAITS = -1;

/** Answers commands: what is known is done, everything else gets ERR, nothing is left unanswered. */
export class ControlQueue {
  readonly #ring: DeviceRing;
  readonly #snapshot: JobSnapshot;
  readonly #chain: ControlChain;
  readonly #commands: ControlCommands;
  readonly #caller: Caller;
  readonly #lengths = new Uint32Array(CONTROL_BURST);
  /** First address without a translation that a command waits for, or -1n. */
  missing = NOTHING_MISSING;
  get missingDirection(): CopyDirection {
    return this.#chain.missingDirection;
  }

  /** @param scratchAt offset in the engine's pool of `scratch`, the same `CONTROL_SCRATCH_BYTES` bytes */
  constructor(
    ring: DeviceRing,
    engine: CopyEngine,
    snapshot: JobSnapshot,
    scratchAt: number,
    scratch: Uint8Array,
    commands: ControlCommands,
    caller: Caller,
  ) {
    this.#ring = ring;
    this.#snapshot = snapshot;
    this.#chain = new ControlChain(engine, scratchAt, scratch);
    this.#commands = commands;
    this.#caller = caller;
  }

  get broken(): string | undefined {
    return this.#ring.broken;
  }

  /** Answers the commands that wait; returns how many. */
  serve(): number {
    const popped = this.#ring.pop(CONTROL_BURST);
    if (popped === 0) return 0;
    const { firstJob } = this.#ring;
    const source = this.#snapshot.take(firstJob[popped]!);
    let answered = 0;
    for (; answered < popped; answered++) {
      this.#chain.move(source, firstJob[answered]!, firstJob[answered + 1]!);
      const length = this.#answer();
      if (length === WAITS) break;
      this.#lengths[answered] = length;
    }
    this.missing = answered < popped ? this.#chain.missing : NOTHING_MISSING;
    if (answered === 0) return 0;
    this.#ring.returnChains(this.#lengths, answered);
    this.#caller.call(this.#ring);
    return answered;
  }

  /**
   * Runs one command; returns the bytes written to the guest: ack and result, or 0 without a place for the ack; `WAITS`
   * where a translation is missing: it is run again, and what it did before it does once more.
   */
  #answer(): number {
    const chain = this.#chain;
    if (!chain.hasPlaceForAck) return 0;
    const isDone = this.#commands.execute(chain);
    if (chain.missing !== NOTHING_MISSING) return WAITS;
    const written = chain.writeAnswer(isDone ? ControlAck.OK : ControlAck.ERR);
    return chain.missing === NOTHING_MISSING ? written : WAITS;
  }
}
