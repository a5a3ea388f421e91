/** A host's side and a guest's side that send frames round between them, frozen except in their turns. */

import { rm } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';

import { ErrorCode, VirtioError } from 'virtio-pmd';
import { DpdkGuest, DpdkHost } from './dpdk-ends.js';
import { type EndOptions, type GuestEnd, type HostEnd, socketsOf } from './ends.js';
import { OurGuest, OurHost } from './our-ends.js';
import { featureMismatch } from './paths.js';
import { processorTime, takenByOthers } from './processor-time.js';
import { TwoPortDpdkHost, TwoPortGuest } from './switch-ends.js';
import type { Contender, Turn, TurnTimes } from './turn.js';

/** Who is on the driver's side, and who on the host's. */
interface PairingKind {
  readonly guest: { start(options: EndOptions): Promise<GuestEnd> };
  readonly host: { start(options: EndOptions): Promise<HostEnd> };
  /** Processes of DPDK among them. */
  readonly dpdk: { readonly guest: boolean; readonly host: boolean };
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

export type PairingOptions = Omit<EndOptions, 'name' | 'socket' | 'facesDpdk'> & {
  /** Where the pairing's socket goes. */
  readonly folder: string;
};

/** One running pairing. */
export class Pairing implements Contender {
  readonly name: PairingName;
  readonly #host: HostEnd;
  readonly #guest: GuestEnd;
  readonly #socket: string;

  private constructor(name: PairingName, host: HostEnd, guest: GuestEnd, socket: string) {
    this.name = name;
    this.#host = host;
    this.#guest = guest;
    this.#socket = socket;
  }

  /**
   * Starts both ends and the traffic, sees that frames go round on the path that was asked for, and freezes it all.
   *
   * @throws VirtioError of whichever end failed; UNSUPPORTED when another path was taken; TIMEOUT when nothing moves.
   */
  static async start(name: PairingName, options: PairingOptions): Promise<Pairing> {
    const kind: PairingKind = KINDS[name];
    const socket = join(options.folder, `${name}.sock`);
    const end = { ...options, socket };
    const host = await kind.host.start({ ...end, name: `${name}-host`, facesDpdk: kind.dpdk.guest });
    let guest: GuestEnd | undefined;
    try {
      guest = await kind.guest.start({ ...end, name: `${name}-guest`, facesDpdk: kind.dpdk.host });
      const pairing = new Pairing(name, host, guest, socket);
      await pairing.#begin(options);
      return pairing;
    } catch (error) {
      await guest?.close();
      await host.close();
      throw error;
    }
  }

  async turn({ settleMs, measureMs }: TurnTimes): Promise<Turn> {
    const pids = [this.#guest.pid, this.#host.pid];
    this.#guest.thaw();
    this.#host.thaw();
    try {
      await sleep(settleMs);
      const start = process.hrtime.bigint();
      const used = processorTime(pids);
      const rate = await this.#host.rate(measureMs);
      const elapsed = Number(process.hrtime.bigint() - start);
      return { rate, taken: takenByOthers(elapsed, processorTime(pids) - used, pids.length) };
    } finally {
      this.#freeze();
    }
  }

  /** Ends both processes, the driver's first, as a guest goes before its host. Idempotent. */
  async close(): Promise<void> {
    // The driver's side asks the host's side to stop its rings, and waits for the answer.
    this.#host.thaw();
    await this.#guest.close();
    await this.#host.close();
    for (const path of [this.#socket, ...socketsOf(this.#socket)]) await rm(path, { force: true });
  }

  async #begin({ path }: PairingOptions): Promise<void> {
    const mismatch = featureMismatch(path, await this.#host.connected());
    if (mismatch !== '') {
      throw new VirtioError(ErrorCode.UNSUPPORTED, `${this.name} did not negotiate ${path.name}: ${mismatch}`);
    }
    await this.#guest.begin();
    await this.#host.begin();
    await this.#awaitTraffic();
    this.#freeze();
  }

  /** Waits until frames go round: on a busy machine the two sides may take a while to meet. */
  async #awaitTraffic(): Promise<void> {
    for (let tries = 0; tries < FIRST_TRAFFIC_TRIES; tries++) {
      if ((await this.#host.rate(FIRST_TRAFFIC_MS)) > 0) return;
    }
    const said = `the host's side: ${this.#host.lastLines()}; the guest's side: ${this.#guest.lastLines()}`;
    throw new VirtioError(ErrorCode.TIMEOUT, `${this.name}: no frame comes back (${said})`, { value: 0 });
  }

  #freeze(): void {
    this.#guest.freeze();
    this.#host.freeze();
  }
}
