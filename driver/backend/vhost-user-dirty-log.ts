/** Where a device notes the pages that it writes, for migration (vhost-user "Migration"). */

import { ErrorCode, VirtioError } from '../errors.js';
import type { DeviceModel } from './device-model.js';
import type { SharedFile } from './vhost-user-shared-file.js';

/** The front-end says where the log is and, apart from that, whether it is wanted: either may come first. */
export class DirtyLog {
  readonly #device: DeviceModel;
  readonly #onMissing: (error: VirtioError) => void;
  #file: SharedFile | undefined;
  #isActive = false;

  /** @param onMissing told where a log is wanted and there is none */
  constructor(device: DeviceModel, onMissing: (error: VirtioError) => void) {
    this.#device = device;
    this.#onMissing = onMissing;
  }

  /** Undefined where there is none. */
  get description(): { readonly bytes: number; readonly isActive: boolean } | undefined {
    return this.#file === undefined ? undefined : { bytes: this.#file.range.bytes, isActive: this.#isActive };
  }

  /** Takes a file over in place of another; it stays the caller's when this fails. */
  async replace(file: SharedFile, isWanted: boolean): Promise<void> {
    const old = this.#file;
    this.#file = file;
    try {
      if (this.#isActive) await this.#device.setLog(file.range);
      else await this.follow(isWanted);
    } catch (error) {
      this.#file = old;
      throw error;
    }
    old?.close();
  }

  /** Has the device log what it writes, or not, as the front-end wants it now. */
  async follow(isWanted: boolean): Promise<void> {
    if (isWanted && this.#file === undefined) {
      const what = 'LOG_ALL was accepted and there is no log: nothing is logged';
      const details = { requirement: 'vhost-user "Migration"', advice: 'send SET_LOG_BASE first' };
      this.#onMissing(new VirtioError(ErrorCode.PROTOCOL_VIOLATION, what, details));
    }
    const range = isWanted ? this.#file?.range : undefined;
    if ((range !== undefined) === this.#isActive) return;
    await this.#device.setLog(range);
    this.#isActive = range !== undefined;
  }

  /** The device was reset, and logs nothing. */
  forget(): void {
    this.#isActive = false;
  }

  /** Closes the descriptor; the device must be closed. Idempotent. */
  close(): void {
    this.#file?.close();
  }
}
