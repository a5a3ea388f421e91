/** The control queue (virtio 1.2 §5.1.6.5): one command at a time. */

import { setTimeout as delay, setImmediate as turn } from 'node:timers/promises';
import { ErrorCode, VirtioError } from '../errors.js';
import type { DmaMemory } from '../memory/dma-memory.js';
import { CONTROL_ACK_BYTES, ControlAck, virtioNetCtrlHdr } from '../spec/control.js';
import type { Doorbell } from '../spec/pci-function.js';
import { type ControlRing, PackedControlRing, SplitControlRing } from './control-ring.js';
import { DoorbellRinger } from './doorbell.js';
import { packedRingViews, type RingPlace, ringViews } from './queue-handle.js';

/** Bytes of the largest command with its header; the ack byte follows. */
export const CONTROL_COMMAND_BYTES = 4096;
/** Bytes of the longest data of a command. */
export const CONTROL_DATA_BYTES = CONTROL_COMMAND_BYTES - virtioNetCtrlHdr.bytes;
/** Ack and result. */
const CONTROL_ANSWER_BYTES = 64;
export const CONTROL_BUFFER_BYTES = CONTROL_COMMAND_BYTES + CONTROL_ANSWER_BYTES;
/** A device that is alive answers in microseconds; one that does not must not hang the port (abuse D33). */
const ANSWER_TIMEOUT_MS = 5000;
/** How long every turn of the event loop looks for the answer. */
const BUSY_MS = 1;

/** What a device answers. */
export interface ControlAnswer {
  readonly ack: number;
  /** Empty where there is none. */
  readonly result: Uint8Array;
}

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
    return (await this.exchange(commandClass, command, data, 0)).ack;
  }

  /**
   * Sends a command that has a result of so many bytes; resolves to the ack byte and, where that is OK, the result.
   *
   * @throws VirtioError as `command` does, and DEVICE_BROKEN for a result that the device has not written
   */
  async exchange(commandClass: number, command: number, data: Uint8Array, resultBytes: number): Promise<ControlAnswer> {
    if (this.#broken !== undefined)
      throw new VirtioError(ErrorCode.RING_BROKEN, `the control queue is broken: ${this.#broken}`);
    const commandBytes = virtioNetCtrlHdr.bytes + data.length;
    if (commandBytes > CONTROL_COMMAND_BYTES) {
      throw new VirtioError(ErrorCode.INVALID_ARGUMENT, `a control command of ${data.length} bytes is too long`, {
        value: data.length,
      });
    }
    const answerBytes = CONTROL_ACK_BYTES + resultBytes;
    if (answerBytes > CONTROL_ANSWER_BYTES) {
      throw new VirtioError(ErrorCode.INVALID_ARGUMENT, `a result of ${resultBytes} bytes is too long`, {
        value: resultBytes,
      });
    }
    const ackAt = this.#bufferAt + CONTROL_COMMAND_BYTES;
    const bytes = new Uint8Array(this.#memory.buffer);
    bytes.set([commandClass, command], this.#bufferAt);
    bytes.set(data, this.#bufferAt + virtioNetCtrlHdr.bytes);
    bytes[ackAt] = NO_ACK;
    this.#post(commandBytes, ackAt, answerBytes);
    const written = await this.#answer();
    // Read once: the device may write it again.
    const answer = bytes.slice(ackAt, ackAt + answerBytes);
    const ack = answer[0]!;
    if (ack !== ControlAck.OK || resultBytes === 0) return { ack, result: NO_RESULT };
    if (written >= answerBytes) return { ack, result: answer.subarray(CONTROL_ACK_BYTES) };
    throw new VirtioError(
      ErrorCode.DEVICE_BROKEN,
      `the device says that it wrote ${written} bytes of an answer of ${answerBytes}`,
      { value: written, requirement: 'virtio 1.3 §5.1.6.5', advice: 'do without what it was asked for' },
    );
  }

  close(): void {
    this.#broken ??= 'it is closed';
    this.#ringer.close();
  }

  #post(commandBytes: number, ackAt: number, answerBytes: number): void {
    const { iovas } = this.#memory;
    this.#ring.post({ addr: iovas.at(this.#bufferAt), len: commandBytes }, { addr: iovas.at(ackAt), len: answerBytes });
    this.#ringer.ring(this.#ring.position);
  }

  /** Waits until the device has used the one chain there is; resolves to the bytes that it says it wrote. */
  async #answer(): Promise<number> {
    const begin = performance.now();
    const deadline = begin + ANSWER_TIMEOUT_MS;
    const patience = begin + BUSY_MS;
    for (;;) {
      const answer = this.#ring.answer();
      if (answer !== undefined && 'breach' in answer) throw this.#break(ErrorCode.RING_BROKEN, answer.breach);
      if (answer !== undefined) return answer.written;
      if (performance.now() > deadline) {
        throw this.#break(ErrorCode.TIMEOUT, `the device did not answer within ${ANSWER_TIMEOUT_MS} ms`);
      }
      // Most devices have answered by then; the others are not worth a busy loop.
      if (performance.now() < patience) await turn();
      else await delay(1);
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
const NO_RESULT = new Uint8Array(0);
