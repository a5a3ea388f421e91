/** The device configuration that a front-end shows its driver: its own, but for what the back-end is asked about. */

import { NetStatus, virtioNetConfig } from '../spec/net-config.js';
import { readOwnConfig } from './front-end.js';
import type { BackendConfig, VhostUserSession } from './vhost-user-session.js';

/**
 * Whether the status field of a back-end counts: its link was up at the beginning. A front-end is not told whether there is
 * STATUS, and back-ends without it have 0 there.
 */
export const keepsStatus = ({ config }: VhostUserSession): boolean =>
  config !== undefined && (config.status & NetStatus.LINK_UP) !== 0;

export class VhostUserConfig {
  readonly #bytes = new Uint8Array(virtioNetConfig.bytes);
  /** Mask of `NetStatus`, whole: which of it a driver has a use for, its features tell later. */
  #status: number = NetStatus.LINK_UP;
  /** Changes that a back-end has told of. */
  #told = 0;
  #isReading = false;

  constructor(macAddress: Uint8Array) {
    this.#bytes.set(macAddress);
  }

  /** Begins with a new back-end. */
  adopt(session: VhostUserSession): void {
    this.#status = keepsStatus(session) ? session.config!.status : NetStatus.LINK_UP;
    this.#write({ max_virtqueue_pairs: session.queuePairs, mtu: session.mtu ?? 0 });
  }

  /**
   * Returns a copy of a part.
   *
   * @param used mask of the `NetStatus` that the driver has a use for
   * @throws VirtioError INVALID_ARGUMENT outside of it
   */
  read(offset: number, bytes: number, used: number): Uint8Array {
    this.#write({ status: this.#status & used });
    return readOwnConfig(this.#bytes, offset, bytes);
  }

  setMacAddress(address: Uint8Array): void {
    this.#bytes.set(address);
  }

  /** The driver has heard it. The back-end sets the bit again when it wants the next one. */
  endAnnouncement(): void {
    this.#status &= ~NetStatus.ANNOUNCE;
  }

  /**
   * Reads what has changed, as the back-end says; calls `onRead` when it is there. However often it says so, one reading at
   * a time is asked for, and one more for what came meanwhile.
   */
  async refresh(session: VhostUserSession, onRead: () => void): Promise<void> {
    this.#told++;
    if (this.#isReading) return;
    this.#isReading = true;
    try {
      for (let seen = -1; seen !== this.#told && session.gone === undefined; ) {
        seen = this.#told;
        const config = await session.readConfig();
        if (config === undefined || session.gone !== undefined) return;
        this.#take(session, config);
        onRead();
      }
    } catch {
      // The connection tells by itself that it is over.
    } finally {
      this.#isReading = false;
    }
  }

  #take(session: VhostUserSession, { status, mtu }: BackendConfig): void {
    if (keepsStatus(session)) this.#status = status;
    if (mtu !== undefined && session.mtu !== undefined) this.#write({ mtu });
  }

  #write(values: Parameters<typeof virtioNetConfig.write>[1]): void {
    virtioNetConfig.write(new DataView(this.#bytes.buffer), values);
  }
}
