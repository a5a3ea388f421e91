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

  /**
   * Tells the device that the queue has work. Never blocks, never fails: a device that is gone is found elsewhere.
   *
   * @param position how far the ring has come: what a doorbell of 32 bits tells too (virtio 1.2 §4.1.5.2.1)
   */
  ring(position: number): void {
    const doorbell = this.#doorbell;
    if (doorbell.kind === 'eventfd') native.signalEventFd(doorbell.fd);
    else if (doorbell.kind === 'mmio') {
      if (doorbell.width === 16) native.write16(this.#map!, doorbell.offset, doorbell.value);
      else native.write32(this.#map!, doorbell.offset, (doorbell.value | (position << 16)) >>> 0);
    } else if (doorbell.kind === 'file') {
      this.#write(doorbell.fd, doorbell.position, position);
    }
  }

  #write(fd: number, at: number, position: number): void {
    const bytes = this.#bytes!;
    if (bytes.length === 4) {
      bytes[2] = position;
      bytes[3] = position >>> 8;
    }
    try {
      writeSync(fd, bytes, 0, bytes.length, at);
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
