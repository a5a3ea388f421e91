/** A host's side and a guest's side that were started together, and are frozen, thawed and ended together. */

import { rm } from 'node:fs/promises';
import { join } from 'node:path';

import { ErrorCode, VirtioError } from 'virtio-pmd';
import { type EndOptions, type GuestEnd, type HostEnd, socketsOf } from './ends.js';
import { featureMismatch } from './paths.js';

/** How the two are started. */
export interface EndKinds<Host extends HostEnd, Guest extends GuestEnd> {
  readonly guest: { start(options: EndOptions): Promise<Guest> };
  readonly host: { start(options: EndOptions): Promise<Host> };
  /** Which of them are DPDK's. */
  readonly dpdk: { readonly guest: boolean; readonly host: boolean };
}

export type EndPairOptions = Omit<EndOptions, 'name' | 'socket'> & {
  /** Where the pair's socket goes. */
  readonly folder: string;
};

export class EndPair<Host extends HostEnd = HostEnd, Guest extends GuestEnd = GuestEnd> {
  readonly host: Host;
  readonly guest: Guest;
  readonly #socket: string;

  private constructor(host: Host, guest: Guest, socket: string) {
    this.host = host;
    this.guest = guest;
    this.#socket = socket;
  }

  /**
   * Starts both ends, sees that the path's features were negotiated, and has them begin.
   *
   * @throws VirtioError of whichever end failed; UNSUPPORTED when another path was taken.
   */
  static async start<Host extends HostEnd, Guest extends GuestEnd>(
    name: string,
    kinds: EndKinds<Host, Guest>,
    options: EndPairOptions,
  ): Promise<EndPair<Host, Guest>> {
    const socket = join(options.folder, `${name}.sock`);
    const end = { ...options, socket };
    const host = await kinds.host.start({ ...end, name: `${name}-host` });
    let guest: Guest | undefined;
    try {
      guest = await kinds.guest.start({ ...end, name: `${name}-guest` });
      const mismatch = featureMismatch(options.path, await host.connected());
      if (mismatch !== '') {
        const what = `${name} did not negotiate ${options.path.name}: ${mismatch}`;
        throw new VirtioError(ErrorCode.UNSUPPORTED, what);
      }
      await guest.begin();
      await host.begin();
      return new EndPair(host, guest, socket);
    } catch (error) {
      await guest?.close();
      await host.close();
      throw error;
    }
  }

  get pids(): readonly number[] {
    return [this.guest.pid, this.host.pid];
  }

  thaw(): void {
    this.guest.thaw();
    this.host.thaw();
  }

  freeze(): void {
    this.guest.freeze();
    this.host.freeze();
  }

  /** What both said last, for a message. */
  lastLines(): string {
    return `the host's side: ${this.host.lastLines()}; the guest's side: ${this.guest.lastLines()}`;
  }

  /** Ends both processes, the driver's first, as a guest goes before its host. Idempotent. */
  async close(): Promise<void> {
    // The driver's side asks the host's side to stop its rings, and waits for the answer.
    this.host.thaw();
    await this.guest.close();
    await this.host.close();
    for (const path of [this.#socket, ...socketsOf(this.#socket)]) await rm(path, { force: true });
  }
}
