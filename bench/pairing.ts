/** A host's side and a guest's side that send frames round between them, frozen except in their turns. */

import { rm } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';

import { ErrorCode, VirtioError } from 'virtio-pmd';
import { DpdkGuest, DpdkHost } from './dpdk-ends.js';
import type { EndOptions, GuestEnd, HostEnd } from './ends.js';
import { OurGuest, OurHost } from './our-ends.js';
import { featureMismatch } from './paths.js';
import { processorTime, takenByOthers } from './processor-time.js';
import type { Contender, Turn, TurnTimes } from './turn.js';

/** The driver's side first, then the host's. */
export const PAIRINGS = ['dpdk-dpdk', 'ours-dpdk', 'dpdk-ours', 'ours-ours'] as const;
export type PairingName = (typeof PAIRINGS)[number];

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
    const [guestKind, hostKind] = name.split('-');
    const socket = join(options.folder, `${name}.sock`);
    const end = { ...options, socket };
    const Host = hostKind === 'dpdk' ? DpdkHost : OurHost;
    const Guest = guestKind === 'dpdk' ? DpdkGuest : OurGuest;
    const host = await Host.start({ ...end, name: `${name}-host`, facesDpdk: guestKind === 'dpdk' });
    let guest: GuestEnd | undefined;
    try {
      guest = await Guest.start({ ...end, name: `${name}-guest`, facesDpdk: hostKind === 'dpdk' });
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
    await rm(this.#socket, { force: true });
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
