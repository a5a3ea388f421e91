/** A network interface of the kernel, as sysfs has it. */

import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { ErrorCode, isSystemError, VirtioError } from '../../../errors.js';

/** IFF_* of linux/if.h. */
export const InterfaceFlag = { UP: 0x1, PROMISCUOUS: 0x100, ALL_MULTICAST: 0x200 } as const;

export class InterfaceSettings {
  readonly #folder: string;
  readonly #name: string;

  constructor(name: string) {
    this.#name = name;
    this.#folder = `/sys/class/net/${name}`;
  }

  /** Whether the interface is in this namespace: it may be deleted, or moved. */
  get isThere(): boolean {
    return existsSync(this.#folder);
  }

  /** Whether the interface is up; false where it is gone. */
  get isUp(): boolean {
    try {
      return (this.#flags & InterfaceFlag.UP) !== 0;
    } catch {
      return false;
    }
  }

  get macAddress(): Uint8Array {
    return Uint8Array.from(this.#read('address').split(':'), (part) => Number.parseInt(part, 16));
  }

  /** @throws VirtioError NOT_FOUND, PERMISSION_DENIED, REQUEST_REFUSED */
  setFlag(flag: number, on: boolean): void {
    const flags = this.#flags;
    this.#write('flags', `0x${(on ? flags | flag : flags & ~flag).toString(16)}`);
  }

  /** Errors as of `setFlag`. */
  setMtu(mtu: number): void {
    this.#write('mtu', `${mtu}`);
  }

  get #flags(): number {
    return Number(this.#read('flags'));
  }

  #read(file: string): string {
    return this.#trying(file, () => readFileSync(`${this.#folder}/${file}`, 'latin1').trim());
  }

  #write(file: string, text: string): void {
    this.#trying(file, () => writeFileSync(`${this.#folder}/${file}`, text));
  }

  #trying<T>(file: string, action: () => T): T {
    try {
      return action();
    } catch (cause) {
      if (!isSystemError(cause)) throw cause;
      const code =
        cause.code === 'ENOENT'
          ? ErrorCode.NOT_FOUND
          : cause.code === 'EACCES' || cause.code === 'EROFS'
            ? ErrorCode.PERMISSION_DENIED
            : ErrorCode.REQUEST_REFUSED;
      throw new VirtioError(code, `${this.#folder}/${file} of the interface ${this.#name}: ${cause.code}`, {
        value: file,
        cause,
      });
    }
  }
}
