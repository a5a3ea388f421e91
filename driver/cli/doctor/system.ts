/** The doctor's view of a machine: what the kernel says in files, below a root that is another folder in tests. */

import { spawnSync } from 'node:child_process';
import { readdirSync, readFileSync, readlinkSync, statSync } from 'node:fs';
import { join } from 'node:path';
import type { DeviceFacts, NetworkFunction } from '../../index.js';
import { probePciDevice } from '../../open.js';
import { networkFunctions } from '../../pci/binding.js';
import { readDeviceFacts } from '../../pci/device-facts.js';

/** What a file is, and who may do what with it. */
export interface FileState {
  readonly kind: 'file' | 'folder' | 'socket' | 'other';
  readonly mode: number;
  readonly uid: number;
  readonly gid: number;
}

/** What is no file. */
export interface SystemOptions {
  /** The folder that stands for `/`. */
  readonly root?: string;
  /** Asks a device that is bound to vfio-pci; throws what opening it throws. */
  readonly probe?: (address: string, access: 'vfio' | 'noiommu') => Promise<DeviceFacts>;
  /** The addresses of each network interface. */
  readonly addresses?: ReadonlyMap<string, readonly string[]>;
  /** The SELinux label of a file. */
  readonly label?: (path: string) => string | undefined;
}

/** Everything that cannot be read is as if it were not there: who asks knows what that means. */
export class System {
  readonly #root: string;
  readonly #options: SystemOptions;

  constructor(options: SystemOptions = {}) {
    this.#root = options.root ?? '/';
    this.#options = options;
  }

  /** What a file says, without white space around it; undefined where it cannot be read. */
  text(path: string): string | undefined {
    try {
      return readFileSync(join(this.#root, path), 'latin1').trim();
    } catch {
      return undefined;
    }
  }

  /** What is in a folder, in order; nothing where there is none. */
  names(path: string): string[] {
    try {
      return readdirSync(join(this.#root, path)).sort();
    } catch {
      return [];
    }
  }

  /** Where a link leads, as it says. */
  link(path: string): string | undefined {
    try {
      return readlinkSync(join(this.#root, path));
    } catch {
      return undefined;
    }
  }

  has(path: string): boolean {
    return this.state(path) !== undefined;
  }

  state(path: string): FileState | undefined {
    try {
      const state = statSync(join(this.#root, path));
      const kinds = { file: state.isFile(), folder: state.isDirectory(), socket: state.isSocket(), other: true };
      const kind = (Object.keys(kinds) as (keyof typeof kinds)[]).find((each) => kinds[each]) ?? 'other';
      return { kind, mode: state.mode & 0o777, uid: state.uid, gid: state.gid };
    } catch {
      return undefined;
    }
  }

  networkFunctions(): NetworkFunction[] {
    const { addresses } = this.#options;
    return networkFunctions({ bus: join(this.#root, 'sys/bus/pci'), net: join(this.#root, 'proc/net'), addresses });
  }

  /** What sysfs says of a device. */
  facts(address: string): DeviceFacts {
    return readDeviceFacts(address, join(this.#root, 'sys/bus/pci/devices'));
  }

  probe(address: string, access: 'vfio' | 'noiommu'): Promise<DeviceFacts> {
    return (this.#options.probe ?? probePciDevice)(address, access);
  }

  label(path: string): string | undefined {
    if (this.#options.label !== undefined) return this.#options.label(path);
    // Node reads no extended attributes.
    const { status, stdout } = spawnSync('stat', ['-c', '%C', path], { encoding: 'utf8', timeout: 5000 });
    return status === 0 ? stdout.trim() : undefined;
  }
}
