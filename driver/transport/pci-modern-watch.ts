/** What a modern PCI device tells without being asked: that it is gone, asks for a reset, or has another configuration. */

import type { BarWindow } from '../pci/capabilities.js';
import type { FeatureSet } from '../spec/features.js';
import { Status } from '../spec/status.js';
import type { TransportEvent } from '../spec/transport.js';
import { touchConfig } from './pci-modern-config.js';
import type { CommonRegisters } from './pci-modern-registers.js';

export class DeviceWatch {
  readonly #registers: CommonRegisters;
  readonly #device: BarWindow;
  readonly #report: (event: TransportEvent) => void;
  readonly #reported = new Set<TransportEvent['type']>();
  /** The generation of the configuration that the driver knows; undefined before its first reading. */
  generation: number | undefined;
  /** Whether the driver has set DRIVER_OK since the last reset. */
  isLive = false;

  constructor(registers: CommonRegisters, device: BarWindow, report: (event: TransportEvent) => void) {
    this.#registers = registers;
    this.#device = device;
    this.#report = report;
  }

  /** The device is reset, or about to be: everything may be told again. */
  reset(): void {
    this.generation = undefined;
    this.isLive = false;
    this.#reported.clear();
  }

  /**
   * Looks, and reports; that it is gone and that it asks for a reset, once until `reset`.
   *
   * @param isTold the device has interrupted for its configuration: it has changed, whatever the generation says
   * @throws VirtioError PEER_GONE when it goes away meanwhile
   */
  look(offered: FeatureSet, isTold: boolean): void {
    const registers = this.#registers;
    if (registers.isGone) {
      this.#once({ type: 'gone', reason: 'registers read all ones' });
      return;
    }
    const status = registers.read('device_status');
    // A live device whose status reads 0 was reset by somebody else: it knows nothing of us any more.
    const isLost = this.isLive && status === 0;
    if (isLost || (status & Status.DEVICE_NEEDS_RESET) !== 0) this.#once({ type: 'needs-reset' });
    // A device may count a change only when configuration is read (virtio 1.2 §4.1.4.3.1).
    touchConfig(this.#device, offered);
    const generation = registers.read('config_generation');
    const hasChanged = this.generation !== undefined && generation !== this.generation;
    this.generation = generation;
    if (hasChanged || isTold) this.#report({ type: 'config' });
  }

  #once(event: TransportEvent): void {
    if (this.#reported.has(event.type)) return;
    this.#reported.add(event.type);
    this.#report(event);
  }
}
