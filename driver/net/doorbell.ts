/** Rings a queue's doorbell from the thread that polls it. */

import { writeSync } from 'node:fs';
import { native } from '../../native/index.js';
import type { Doorbell } from '../spec/pci-function.js';

/** A doorbell in hand: maps its register when it is one. */
export class DoorbellRinger {
  readonly #doorbell: Doorbell;
  readonly #map: ArrayBuffer | undefined;
  /** What is written to a doorbell that is a file. */
  readonly #bytes: Uint8Array | undefined;

  constructor(doorbell: Doorbell) {
    this.#doorbell = doorbell;
    this.#map =
      doorbell.kind === 'mmio' ? native.mapShared(doorbell.fd, doorbell.fileOffset, doorbell.bytes, 0) : undefined;
    this.#bytes = doorbell.kind === 'file' ? littleEndian(doorbell.value, doorbell.width / 8) : undefined;
  }

  /** Tells the device that the queue has work. Never blocks, never fails: a device that is gone is found elsewhere. */
  ring(): void {
    const doorbell = this.#doorbell;
    if (doorbell.kind === 'eventfd') native.signalEventFd(doorbell.fd);
    else if (doorbell.kind === 'mmio') {
      if (doorbell.width === 16) native.write16(this.#map!, doorbell.offset, doorbell.value);
      else native.write32(this.#map!, doorbell.offset, doorbell.value);
    } else if (doorbell.kind === 'file') {
      this.#write(doorbell.fd, doorbell.position);
    }
  }

  #write(fd: number, position: number): void {
    try {
      writeSync(fd, this.#bytes!, 0, this.#bytes!.length, position);
    } catch {
      // As for a register in memory: nobody is there to hear it.
    }
  }

  close(): void {
    if (this.#map !== undefined) native.unmapShared(this.#map);
  }
}

const littleEndian = (value: number, bytes: number): Uint8Array =>
  Uint8Array.from({ length: bytes }, (_, index) => (value >>> (8 * index)) & 0xff);
