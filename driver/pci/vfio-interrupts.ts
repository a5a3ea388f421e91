/** The interrupts of a function through VFIO: each is an eventfd that the kernel signals. */

import { native } from '../../native/index.js';
import { ErrorCode, VirtioError } from '../errors.js';
import { VfioIrqSetFlag, type VfioPciIrq, VfioRequest, vfioIrqInfo, vfioIrqSet } from '../spec/vfio.js';
import type { Libc } from './libc.js';

/** A kind of interrupt; `VfioPciIrq`. */
type IrqIndex = (typeof VfioPciIrq)[keyof typeof VfioPciIrq];

export class VfioInterrupts {
  readonly #libc: Libc;
  readonly #device: number;
  /** The eventfds of each kind that is on. */
  readonly #on = new Map<IrqIndex, number[]>();

  /** @param device descriptor of the device, which stays its owner's */
  constructor(calls: Libc, device: number) {
    this.#libc = calls;
    this.#device = device;
  }

  /** How many interrupts of a kind the function has. */
  count(index: IrqIndex): number {
    const argument = new Uint8Array(vfioIrqInfo.bytes);
    const view = new DataView(argument.buffer);
    vfioIrqInfo.write(view, { argsz: argument.length, index });
    this.#libc.ioctlBuffer(this.#device, VfioRequest.DEVICE_GET_IRQ_INFO, argument);
    return vfioIrqInfo.read(view).count;
  }

  /**
   * Turns on the first `count` of a kind, anew where it was on; returns an eventfd each, which are this object's.
   *
   * @throws VirtioError UNSUPPORTED when the kernel has fewer to give: none is on then
   */
  enable(index: IrqIndex, count: number): readonly number[] {
    this.disable(index);
    if (count === 0) return [];
    const fds: number[] = [];
    try {
      for (let each = 0; each < count; each++) fds.push(native.createEventFd(0));
      this.#set(index, VfioIrqSetFlag.DATA_EVENTFD | VfioIrqSetFlag.ACTION_TRIGGER, Int32Array.from(fds));
    } catch (error) {
      for (const fd of fds) native.closeFd(fd);
      throw error;
    }
    this.#on.set(index, fds);
    return fds;
  }

  /** Idempotent. */
  disable(index: IrqIndex): void {
    const fds = this.#on.get(index);
    if (fds === undefined) return;
    this.#on.delete(index);
    try {
      // No eventfds at all: the kind is off.
      this.#set(index, VfioIrqSetFlag.DATA_NONE | VfioIrqSetFlag.ACTION_TRIGGER, new Int32Array(0));
    } finally {
      for (const fd of fds) native.closeFd(fd);
    }
  }

  /** Lets a level-triggered line interrupt again: VFIO masks it when it fires (vfio.rst, VFIO_IRQ_INFO_AUTOMASKED). */
  unmask(index: IrqIndex): void {
    if (!this.#on.has(index)) return;
    this.#set(index, VfioIrqSetFlag.DATA_NONE | VfioIrqSetFlag.ACTION_UNMASK, new Int32Array(0), 1);
  }

  /** Turns everything off, whatever fails. Idempotent. */
  close(): void {
    let failure: unknown;
    for (const index of [...this.#on.keys()]) {
      try {
        this.disable(index);
      } catch (error) {
        failure ??= error;
      }
    }
    if (failure !== undefined) throw failure;
  }

  #set(index: IrqIndex, flags: number, fds: Int32Array, count = fds.length): void {
    const argument = new Uint8Array(vfioIrqSet.bytes + fds.byteLength);
    const view = new DataView(argument.buffer);
    vfioIrqSet.write(view, { argsz: argument.length, flags, index, count });
    for (const [each, fd] of fds.entries()) view.setInt32(vfioIrqSet.bytes + 4 * each, fd, true);
    const fewer = this.#libc.ioctlBuffer(this.#device, VfioRequest.DEVICE_SET_IRQS, argument);
    // The kernel's answer when it could not allocate so many vectors: how many there are; none was turned on.
    if (fewer > 0) {
      throw new VirtioError(ErrorCode.UNSUPPORTED, `the kernel has ${fewer} of ${count} interrupts for the device`, {
        value: fewer,
        requirement: 'Linux, include/uapi/linux/vfio.h, VFIO_DEVICE_SET_IRQS',
        advice: 'poll, or use fewer queues',
      });
    }
  }
}
