/** A host's side and a guest's side that send frames round between them, frozen except in their turns. */

import { setTimeout as sleep } from 'node:timers/promises';

import { ErrorCode, VirtioError } from 'virtio-pmd';
import { DpdkGuest, DpdkHost } from './dpdk-ends.js';
import { type EndKinds, EndPair, type EndPairOptions } from './end-pair.js';
import type { CountingHostEnd, EndOptions, GuestEnd } from './ends.js';
import { firstFrames } from './frames.js';
import { OurGuest, OurHost } from './our-ends.js';
import { processorTime, takenByOthers } from './processor-time.js';
import type { Scenario } from './scenario.js';
import { TwoPortDpdkHost, TwoPortGuest } from './switch-ends.js';
import type { Contender, Turn, TurnTimes } from './turn.js';

/** Who is on the driver's side, and who on the host's. */
interface PairingKind extends EndKinds<CountingHostEnd, GuestEnd> {
  /** The pairing that it is compared with: DPDK's own doing of the same. */
  readonly base: string;
}

const OURS = { guest: false, host: false } as const;
const LOOPBACK_BASE = 'dpdk-dpdk';
const SWITCH_BASE = 'switch-dpdk';

/** Named by the driver's side and the host's; between two ports of one guest, by who switches. */
const KINDS = {
  'dpdk-dpdk': { guest: DpdkGuest, host: DpdkHost, dpdk: { guest: true, host: true }, base: LOOPBACK_BASE },
  'ours-dpdk': { guest: OurGuest, host: DpdkHost, dpdk: { ...OURS, host: true }, base: LOOPBACK_BASE },
  'dpdk-ours': { guest: DpdkGuest, host: OurHost, dpdk: { ...OURS, guest: true }, base: LOOPBACK_BASE },
  'ours-ours': { guest: OurGuest, host: OurHost, dpdk: OURS, base: LOOPBACK_BASE },
  'switch-dpdk': { guest: TwoPortGuest, host: TwoPortDpdkHost, dpdk: { guest: true, host: true }, base: SWITCH_BASE },
  'switch-ours': {
    guest: TwoPortGuest,
    host: { start: (options: EndOptions) => OurHost.startSwitch(options) },
    dpdk: { ...OURS, guest: true },
    base: SWITCH_BASE,
  },
} as const satisfies Record<string, PairingKind>;

export type PairingName = keyof typeof KINDS;
export const PAIRINGS = Object.keys(KINDS) as readonly PairingName[];

/** The pairing that another is compared with; of anything else, that of the loop-back. */
export const baseOf = (name: string): PairingName => (name in KINDS ? KINDS[name as PairingName].base : LOOPBACK_BASE);

/** Processes of a pairing: DPDK's, and ours. */
export function processesOf(name: PairingName): { readonly dpdk: number; readonly ours: number } {
  const { guest, host } = KINDS[name].dpdk;
  const dpdk = Number(guest) + Number(host);
  return { dpdk, ours: 2 - dpdk };
}

/** Time in which the first frames must have gone round, and how often it is tried. */
const FIRST_TRAFFIC_MS = 200;
const FIRST_TRAFFIC_TRIES = 10;

export type PairingOptions = Scenario & Pick<EndPairOptions, 'cores' | 'memory' | 'folder'>;

/** One running pairing. */
export class Pairing implements Contender {
  readonly name: PairingName;
  readonly #ends: EndPair<CountingHostEnd>;

  private constructor(name: PairingName, ends: EndPair<CountingHostEnd>) {
    this.name = name;
    this.#ends = ends;
  }

  /**
   * Starts both ends and the traffic, sees that frames go round on the path that was asked for, and freezes it all.
   *
   * @throws VirtioError of whichever end failed; UNSUPPORTED when another path was taken; TIMEOUT when nothing moves.
   */
  static async start(name: PairingName, options: PairingOptions): Promise<Pairing> {
    const { size, ringSize, burst } = options;
    const kind: PairingKind = KINDS[name];
    const ends = await EndPair.start(name, kind, { ...options, frames: firstFrames(size, ringSize, burst) });
    try {
      const pairing = new Pairing(name, ends);
      await pairing.#awaitTraffic();
      ends.freeze();
      return pairing;
    } catch (error) {
      await ends.close();
      throw error;
    }
  }

  async turn({ settleMs, measureMs }: TurnTimes): Promise<Turn> {
    const { pids } = this.#ends;
    this.#ends.thaw();
    try {
      await sleep(settleMs);
      const start = process.hrtime.bigint();
      const used = processorTime(pids);
      const rate = await this.#ends.host.rate(measureMs);
      const elapsed = Number(process.hrtime.bigint() - start);
      return { rate, taken: takenByOthers(elapsed, processorTime(pids) - used, pids.length) };
    } finally {
      this.#ends.freeze();
    }
  }

  /** Ends both processes. Idempotent. */
  async close(): Promise<void> {
    await this.#ends.close();
  }

  /** Waits until frames go round: on a busy machine the two sides may take a while to meet. */
  async #awaitTraffic(): Promise<void> {
    for (let tries = 0; tries < FIRST_TRAFFIC_TRIES; tries++) {
      if ((await this.#ends.host.rate(FIRST_TRAFFIC_MS)) > 0) return;
    }
    const what = `${this.name}: no frame comes back (${this.#ends.lastLines()})`;
    throw new VirtioError(ErrorCode.TIMEOUT, what, { value: 0 });
  }
}
