/** The control queue (virtio 1.2 §5.1.6.5): one command at a time. */

import { setTimeout as delay } from 'node:timers/promises';
import { ErrorCode, VirtioError } from '../errors.js';
import type { DmaMemory } from '../memory/dma-memory.js';
import { CONTROL_ACK_BYTES, virtioNetCtrlHdr } from '../spec/control.js';
import type { Doorbell } from '../spec/pci-function.js';
import { type ControlRing, PackedControlRing, SplitControlRing } from './control-ring.js';
import { DoorbellRinger } from './doorbell.js';
import { packedRingViews, type RingPlace, ringViews } from './queue-handle.js';

/** Bytes of the largest command with its header; the ack byte follows. */
export const CONTROL_COMMAND_BYTES = 4096;
export const CONTROL_BUFFER_BYTES = CONTROL_COMMAND_BYTES + 64;
/** A device that is alive answers in microseconds; one that does not must not hang the port (abuse D33). */
const ANSWER_TIMEOUT_MS = 5000;

/** Sends commands and waits for their ack, on the control plane. */
export class ControlQueue {
  readonly #memory: DmaMemory;
  readonly #ring: ControlRing;
  readonly #bufferAt: number;
  readonly #ringer: DoorbellRinger;
  #broken: string | undefined;

  /** @param bufferAt offset of `CONTROL_BUFFER_BYTES` bytes of the memory, for the command */
  constructor(memory: DmaMemory, ring: RingPlace, bufferAt: number, doorbell: Doorbell) {
    this.#memory = memory;
    this.#ring = ring.packed
      ? new PackedControlRing(packedRingViews(memory, ring))
      : new SplitControlRing(ringViews(memory, ring));
    this.#bufferAt = bufferAt;
    this.#ringer = new DoorbellRinger(doorbell);
  }

  /**
   * Sends a command; resolves to the ack byte.
   *
   * @throws VirtioError TIMEOUT when the device does not answer, RING_BROKEN when its answer is none; the queue
   * is not used any more after either
   */
  async command(commandClass: number, command: number, data: Uint8Array): Promise<number> {
    if (this.#broken !== undefined)
      throw new VirtioError(ErrorCode.RING_BROKEN, `the control queue is broken: ${this.#broken}`);
    const commandBytes = virtioNetCtrlHdr.bytes + data.length;
    if (commandBytes > CONTROL_COMMAND_BYTES) {
      throw new VirtioError(ErrorCode.INVALID_ARGUMENT, `a control command of ${data.length} bytes is too long`, {
        value: data.length,
      });
    }
    const ackAt = this.#bufferAt + CONTROL_COMMAND_BYTES;
    const bytes = new Uint8Array(this.#memory.buffer);
    bytes.set([commandClass, command], this.#bufferAt);
    bytes.set(data, this.#bufferAt + virtioNetCtrlHdr.bytes);
    bytes[ackAt] = NO_ACK;
    this.#post(commandBytes, ackAt);
    await this.#answer();
    return bytes[ackAt]!;
  }

  close(): void {
    this.#broken ??= 'it is closed';
    this.#ringer.close();
  }

  #post(commandBytes: number, ackAt: number): void {
    const { iovas } = this.#memory;
    this.#ring.post(
      { addr: iovas.at(this.#bufferAt), len: commandBytes },
      { addr: iovas.at(ackAt), len: CONTROL_ACK_BYTES },
    );
    this.#ringer.ring(this.#ring.position);
  }

  /** Waits until the device has used the one chain there is. */
  async #answer(): Promise<void> {
    const deadline = performance.now() + ANSWER_TIMEOUT_MS;
    for (;;) {
      const answer = this.#ring.answer();
      if (answer === 'used') return;
      if (answer !== 'none') throw this.#break(ErrorCode.RING_BROKEN, answer.breach);
      if (performance.now() > deadline) {
        throw this.#break(ErrorCode.TIMEOUT, `the device did not answer within ${ANSWER_TIMEOUT_MS} ms`);
      }
      await delay(1);
      // Who closes the port does not wait for a device that may never answer.
      if (this.#broken !== undefined) throw this.#break(ErrorCode.WRONG_STATE, this.#broken);
    }
  }

  #break(code: ErrorCode, reason: string): VirtioError {
    this.#broken = reason;
    return new VirtioError(code, `the control queue is broken: ${reason}`, {
      value: reason,
      requirement: 'virtio 1.2 §5.1.6.5',
      advice: 'stop and start the port: packets need no control queue',
    });
  }
}

/** Neither OK nor ERR: shows that the device has not written. */
const NO_ACK = 0xff;
