/** Rings a queue's doorbell from the thread that polls it. */

import { native } from '../../native/index.js';
import type { Doorbell } from '../spec/pci-function.js';

/** A doorbell in hand: maps its register when it is one. */
export class DoorbellRinger {
  readonly #doorbell: Doorbell;
  readonly #map: ArrayBuffer | undefined;

  constructor(doorbell: Doorbell) {
    this.#doorbell = doorbell;
    this.#map =
      doorbell.kind === 'mmio' ? native.mapShared(doorbell.fd, doorbell.fileOffset, doorbell.bytes, 0) : undefined;
  }

  /** Tells the device that the queue has work. Never blocks, never fails: a device that is gone is found elsewhere. */
  ring(): void {
    const doorbell = this.#doorbell;
    if (doorbell.kind === 'eventfd') native.signalEventFd(doorbell.fd);
    else if (doorbell.kind === 'mmio') {
      if (doorbell.width === 16) native.write16(this.#map!, doorbell.offset, doorbell.value);
      else native.write32(this.#map!, doorbell.offset, doorbell.value);
    }
  }

  close(): void {
    if (this.#map !== undefined) native.unmapShared(this.#map);
  }
}
