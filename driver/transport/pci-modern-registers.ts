/** The common configuration structure of a modern device, register by register (virtio 1.2 §4.1.4.3). */

import { ErrorCode, VirtioError } from '../errors.js';
import type { BarWindow } from '../pci/capabilities.js';
import type { Field, FieldType } from '../spec/layout.js';
import { virtioPciCommonCfg } from '../spec/pci.js';
import { STATUS_GONE } from '../spec/status.js';
import { highWord, lowWord } from '../units.js';

type Registers = typeof virtioPciCommonCfg.fields;
type NamesOf<T> = {
  [K in keyof Registers]: Registers[K]['type'] extends FieldType<T & (number | bigint)> ? K : never;
}[keyof Registers];
/** A register of 8, 16 or 32 bits. */
export type NumberRegister = NamesOf<number>;
/** A register of 64 bits. */
export type AddressRegister = NamesOf<bigint>;

/** Accesses registers by their width: "the driver MUST use 8-bit wide accesses for 8-bit wide fields", and so on (virtio 1.2 §4.1.3.1). */
export class CommonRegisters {
  readonly #window: BarWindow;
  readonly #address: string;

  /** @param address the name of the device in errors */
  constructor(window: BarWindow, address: string) {
    this.#window = window;
    this.#address = address;
  }

  /** Whether the status reads all ones, as every register of a device that was unplugged does; it cannot while it is there. */
  get isGone(): boolean {
    return this.#readRaw('device_status') === STATUS_GONE;
  }

  /** Whether the device's structure is long enough to have this register. */
  has(name: keyof Registers): boolean {
    const field: Field = virtioPciCommonCfg.fields[name];
    return field.offset + field.bytes <= this.#window.bytes;
  }

  /** @throws VirtioError PEER_GONE when it reads all ones because the device is gone */
  read(name: NumberRegister): number {
    const value = this.#readRaw(name);
    if (value === 2 ** (8 * virtioPciCommonCfg.fields[name].bytes) - 1 && this.isGone) throw gone(this.#address);
    return value;
  }

  #readRaw(name: NumberRegister): number {
    const { bar, offset } = this.#window;
    const field = this.#field(name);
    const at = offset + field.offset;
    if (field.bytes === 1) return bar.read8(at);
    return field.bytes === 2 ? bar.read16(at) : bar.read32(at);
  }

  write(name: NumberRegister, value: number): void {
    const { bar, offset } = this.#window;
    const field = this.#writable(name);
    const at = offset + field.offset;
    if (field.bytes === 1) bar.write8(at, value);
    else if (field.bytes === 2) bar.write16(at, value);
    else bar.write32(at, value);
  }

  /** Writes an address as two 32-bit halves, the low one first (virtio 1.2 §4.1.3). */
  writeAddress(name: AddressRegister, value: bigint): void {
    const at = this.#window.offset + this.#writable(name).offset;
    this.#window.bar.write32(at, lowWord(value));
    this.#window.bar.write32(at + 4, highWord(value));
  }

  #field(name: keyof Registers): Field {
    if (!this.has(name)) {
      throw new VirtioError(ErrorCode.DEVICE_BROKEN, `the common configuration is too short for ${name}`, {
        value: this.#window.bytes,
        requirement: 'virtio 1.2 §4.1.4.3',
      });
    }
    return virtioPciCommonCfg.fields[name];
  }

  #writable(name: keyof Registers): Field {
    const field = this.#field(name);
    if (field.access === 'ro') {
      throw new VirtioError(ErrorCode.INVALID_ARGUMENT, `${name} is read-only for the driver`, {
        requirement: 'virtio 1.2 §4.1.4.3.2',
      });
    }
    return field;
  }
}

/** The error for a device whose registers read all ones. */
export const gone = (address: string): VirtioError =>
  new VirtioError(ErrorCode.PEER_GONE, `${address}: the device is gone: its registers read all ones`, {
    value: STATUS_GONE,
    requirement: 'virtio 1.2 §2.1',
    advice: 'check that the device is still plugged in, then open it again',
  });
