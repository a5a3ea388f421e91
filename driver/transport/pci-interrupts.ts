/** The interrupts of a PCI device on the event loop: which eventfd tells of what. */

import { type FdPoll, native, PollEvent } from '../../native/index.js';
import { ErrorCode, VirtioError } from '../errors.js';
import type { BarWindow } from '../pci/capabilities.js';
import { Isr } from '../spec/pci.js';
import type { PciFunction } from '../spec/pci-function.js';
import type { InterruptKind } from '../spec/transport.js';
import { closeAll, OwnedFd } from '../wire/owned-fd.js';

/** The device's side of it. Neither may throw. */
export interface InterruptedDevice {
  /** The device has interrupted for its configuration. */
  configInterrupt(): void;
  /** Reads, and so clears, the interrupt status (virtio 1.2 §4.1.4.5). */
  takeIsr(): number;
}

const CONFIG_VECTOR = 0;

export class PciInterrupts {
  readonly #function: PciFunction;
  readonly #device: InterruptedDevice;
  #kind: Extract<InterruptKind, 'msix' | 'intx' | 'none'> = 'none';
  #fds: readonly number[] = [];
  #queues: readonly number[] = [];
  /** With one line for everything: what wakes each queue. */
  readonly #relays = new Map<number, OwnedFd>();
  #poll: FdPoll | undefined;

  constructor(fn: PciFunction, device: InterruptedDevice) {
    this.#function = fn;
    this.#device = device;
  }

  /** Number of MSI-X vectors that are on. */
  get vectors(): number {
    return this.#kind === 'msix' ? this.#fds.length : 0;
  }

  /**
   * Turns on what serves configuration and these queues: MSI-X with a vector each; else the line, where a queue needs it;
   * else MSI-X for configuration alone. What is on and serves stays on.
   */
  request(queues: readonly number[]): InterruptKind {
    const isServed = this.#kind !== 'none' && queues.join() === this.#queues.join();
    if (isServed) {
      for (const fd of [...this.#fds, ...this.#relayFds()]) native.drainEventFd(fd);
      // What came while nobody looked has masked the line.
      this.#unmaskLine();
      return this.#kind;
    }
    this.close();
    this.#queues = queues;
    const { interruptVectors } = this.#function;
    if (interruptVectors > queues.length && this.#useVectors(queues.length + 1)) return this.#kind;
    if (queues.length > 0 && this.#useLine()) return this.#kind;
    if (interruptVectors > 0) this.#useVectors(1);
    return this.#kind;
  }

  /** The vector of configuration; undefined without MSI-X. */
  get configVector(): number | undefined {
    return this.#kind === 'msix' ? CONFIG_VECTOR : undefined;
  }

  /** The vector of a queue; undefined without one. */
  vectorOf(index: number): number | undefined {
    const vector = this.#queues.indexOf(index) + 1;
    return vector > CONFIG_VECTOR && vector < this.vectors ? vector : undefined;
  }

  /** The eventfd of a queue; undefined without one. */
  fdOf(index: number): number | undefined {
    const vector = this.vectorOf(index);
    return vector === undefined ? this.#relays.get(index)?.fd : this.#fds[vector];
  }

  /** Turns all off. Idempotent. */
  close(): void {
    // The polls end before their descriptors do.
    this.#poll?.close();
    this.#poll = undefined;
    closeAll([...this.#relays.values()]);
    this.#relays.clear();
    this.#queues = [];
    this.#fds = [];
    if (this.#kind === 'none') return;
    this.#kind = 'none';
    this.#function.disableInterrupts();
  }

  /** False when the machine has not so many. */
  #useVectors(count: number): boolean {
    try {
      this.#fds = this.#function.enableInterrupts(count);
    } catch (error) {
      if (error instanceof VirtioError && error.code === ErrorCode.UNSUPPORTED) return false;
      throw error;
    }
    this.#kind = 'msix';
    this.#watch(this.#fds[CONFIG_VECTOR]!, () => this.#device.configInterrupt());
    return true;
  }

  /** False when the function has no line. */
  #useLine(): boolean {
    const fd = this.#function.enableLine?.();
    if (fd === undefined) return false;
    this.#fds = [fd];
    this.#kind = 'intx';
    for (const queue of this.#queues) this.#relays.set(queue, new OwnedFd(native.createEventFd(0)));
    this.#watch(fd, () => this.#lineFired());
    return true;
  }

  /** The line tells that something is there; the status, what. All queues share its bit. */
  #lineFired(): void {
    const isr = this.#device.takeIsr();
    if ((isr & Isr.QUEUE) !== 0) for (const fd of this.#relayFds()) native.signalEventFd(fd);
    if ((isr & Isr.CONFIG) !== 0) this.#device.configInterrupt();
    // Reading the status has taken the line back; the next interrupt is another one.
    this.#unmaskLine();
  }

  #unmaskLine(): void {
    if (this.#kind !== 'intx') return;
    try {
      this.#function.unmaskLine?.();
    } catch {
      // A device that is gone interrupts nobody; that it is gone is found by its registers.
    }
  }

  #relayFds(): number[] {
    return [...this.#relays.values()].map(({ fd }) => fd);
  }

  #watch(fd: number, onFire: () => void): void {
    this.#poll = native.pollFd(fd, PollEvent.READABLE, () => {
      native.drainEventFd(fd);
      onFire();
    });
    // Waiting for a change of the link is no reason to live.
    this.#poll.unref();
  }
}

/** Reads the interrupt status of a modern device; everything it could say where it has none. */
export const takeIsr = (isr: BarWindow | undefined): number =>
  isr === undefined ? Isr.QUEUE | Isr.CONFIG : isr.bar.read8(isr.offset);

/** Calls `onRemoval` once, when the machine wants the device back; returns how to stop that. */
export function watchRemoval(fn: PciFunction, onRemoval: () => void): () => void {
  const fd = fn.removalFd;
  if (fd === undefined) return () => undefined;
  const poll = native.pollFd(fd, PollEvent.READABLE, () => {
    native.drainEventFd(fd);
    poll.close();
    onRemoval();
  });
  poll.unref();
  return () => poll.close();
}
