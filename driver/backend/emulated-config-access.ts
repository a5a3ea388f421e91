/** Accesses to the configuration space of the emulated function, and the window in it to the BARs (virtio 1.2 §4.1.4.9). */

import { ErrorCode, VirtioError } from '../errors.js';
import { MsixControl, PciCommand, pciHeader, pciMsixCap, virtioPciCfgCap } from '../spec/pci.js';
import type { Bar } from '../spec/pci-function.js';
import { EmulatedBarIndex, type EmulatedConfigSpace } from './emulated-config-space.js';

/** What a driver can change of the command register of a function without INTx; I/O where it has a BAR for that. */
const COMMAND_WRITABLE = PciCommand.MEMORY | PciCommand.MASTER | PciCommand.INTX_DISABLE;

export class EmulatedConfigAccess {
  readonly #space: EmulatedConfigSpace;
  readonly #view: DataView;
  readonly #bar: (index: number) => Bar | undefined;
  readonly #breach: (clause: string, what: string) => void;

  constructor(
    space: EmulatedConfigSpace,
    bar: (index: number) => Bar | undefined,
    breach: (clause: string, what: string) => void,
  ) {
    this.#space = space;
    this.#view = new DataView(space.bytes.buffer);
    this.#bar = bar;
    this.#breach = breach;
  }

  get bytes(): Uint8Array {
    return this.#space.bytes;
  }

  /** Whether a bit of the command register is set. */
  hasCommand(mask: number): boolean {
    return (this.#view.getUint16(pciHeader.fields.command.offset, true) & mask) !== 0;
  }

  get isMsixEnabled(): boolean {
    const { msix } = this.#space;
    if (msix === undefined) return false;
    const control = this.#view.getUint16(msix + pciMsixCap.fields.message_control.offset, true);
    return (control & MsixControl.ENABLE) !== 0;
  }

  setMsixEnabled(enabled: boolean): void {
    if (this.#space.msix === undefined) return;
    const at = this.#space.msix + pciMsixCap.fields.message_control.offset;
    const control = this.#view.getUint16(at, true);
    this.#view.setUint16(at, enabled ? control | MsixControl.ENABLE : control & ~MsixControl.ENABLE, true);
  }

  read(offset: number, bytes: number): number {
    this.#check(offset, bytes);
    if (offset === this.#windowData) this.#fetchWindow(offset);
    if (bytes === 1) return this.#view.getUint8(offset);
    return bytes === 2 ? this.#view.getUint16(offset, true) : this.#view.getUint32(offset, true);
  }

  write16(offset: number, value: number): void {
    this.#check(offset, 2);
    if (offset === pciHeader.fields.command.offset) {
      const hasPorts = this.#bar(EmulatedBarIndex.LEGACY) !== undefined;
      this.#view.setUint16(offset, value & (hasPorts ? COMMAND_WRITABLE | PciCommand.IO : COMMAND_WRITABLE), true);
    } else if (
      this.#space.msix !== undefined &&
      offset === this.#space.msix + pciMsixCap.fields.message_control.offset
    ) {
      const writable = MsixControl.ENABLE | MsixControl.FUNCTION_MASK;
      this.#view.setUint16(offset, (this.#view.getUint16(offset, true) & ~writable) | (value & writable), true);
    } else if (this.#isWindow(offset)) {
      this.#view.setUint16(offset, value, true);
      this.#storeWindow(offset);
    } else if (offset >= pciHeader.bytes && offset < this.#space.end) {
      // "The driver MUST NOT write into any field of the capability structure" but those of PCI_CFG.
      this.#breach('virtio 1.2 §4.1.4.1', `a capability was written at 0x${offset.toString(16)}`);
    }
  }

  /** Where `pci_cfg_data` is; undefined without the window. */
  get #windowData(): number | undefined {
    const { pciCfg } = this.#space;
    return pciCfg === undefined ? undefined : pciCfg + virtioPciCfgCap.fields.pci_cfg_data.offset;
  }

  #isWindow(offset: number): boolean {
    const { pciCfg } = this.#space;
    if (pciCfg === undefined) return false;
    const at = offset - pciCfg;
    const { bar, offset: position } = virtioPciCfgCap.fields;
    return at === bar.offset || (at >= position.offset && at < virtioPciCfgCap.bytes);
  }

  /** The access that the window names; undefined when it is none that a BAR has. */
  #window(): { bar: Bar; offset: number; length: number } | undefined {
    const { bar: index, offset, length } = virtioPciCfgCap.read(this.#view, this.#space.pciCfg ?? 0);
    const bar = this.#bar(index);
    const isFine =
      [1, 2, 4].includes(length) && offset % length === 0 && bar !== undefined && offset + length <= bar.bytes;
    if (isFine) return { bar, offset, length };
    this.#breach('virtio 1.2 §4.1.4.9.2', `pci_cfg_data was accessed for ${length} bytes at ${offset} in BAR ${index}`);
    return undefined;
  }

  #fetchWindow(data: number): void {
    const window = this.#window();
    if (window === undefined) return;
    const { bar, offset, length } = window;
    const value = length === 1 ? bar.read8(offset) : length === 2 ? bar.read16(offset) : bar.read32(offset);
    this.#view.setUint32(data, value, true);
  }

  /** Writes through the window: with its upper half when it is 4 bytes wide, for a seam that writes 16 bits at a time. */
  #storeWindow(written: number): void {
    const data = this.#windowData ?? 0;
    const half = written - data;
    if (half !== 0 && half !== 2) return;
    const { length } = virtioPciCfgCap.read(this.#view, this.#space.pciCfg ?? 0);
    if (half !== (length === 4 ? 2 : 0)) return;
    const window = this.#window();
    if (window === undefined) return;
    const value = this.#view.getUint32(data, true);
    if (length === 1) window.bar.write8(window.offset, value & 0xff);
    else if (length === 2) window.bar.write16(window.offset, value & 0xffff);
    else window.bar.write32(window.offset, value);
  }

  #check(offset: number, bytes: number): void {
    if (Number.isInteger(offset) && offset >= 0 && offset + bytes <= this.bytes.length && offset % bytes === 0) return;
    throw new VirtioError(
      ErrorCode.INVALID_ARGUMENT,
      `an access of ${bytes} bytes at ${offset} is outside configuration space, or not aligned`,
      { value: offset },
    );
  }
}
