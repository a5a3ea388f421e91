/** A vhost-user socket, as the checks see it, and the program at its other end. */

import { basename, dirname, resolve } from 'node:path';
import { type Mapping, mappings, type Process } from './processes.js';
import type { FileState, System } from './system.js';
import type { User } from './user.js';

/** The flag of a socket that takes connections (Linux, `__SO_ACCEPTCON`). */
const LISTENS = 0x1_0000;
/** Smaller ones are no memory of a guest. */
const REGION_BYTES_MIN = 1 << 20;
/** How command lines say that the program is the front-end of the socket they name. */
const FRONT_END = /^qemu|cloud-hypervisor|crosvm|vhost-user|vhost_user=true|virtio_user/;
const BACK_END = /^net_vhost|^backend$/;

interface SocketParts {
  readonly system: System;
  readonly user: User;
  readonly path: string;
  /** All processes that can be seen. */
  readonly others: readonly Process[];
}

export class Socket {
  readonly system: System;
  readonly user: User;
  /** As it was given. */
  readonly path: string;
  /** The program that names it on its command line as a front-end does. */
  readonly frontEnd: Process | undefined;
  readonly #others: readonly Process[];

  constructor(parts: SocketParts) {
    this.system = parts.system;
    this.user = parts.user;
    this.path = parts.path;
    this.#others = parts.others;
    this.frontEnd = parts.others.find((each) => isFrontEnd(each, this.absolute));
  }

  get absolute(): string {
    return resolve(this.path);
  }

  get folder(): string {
    return dirname(this.absolute);
  }

  get state(): FileState | undefined {
    return this.system.state(this.absolute);
  }

  get folderState(): FileState | undefined {
    return this.system.state(this.folder);
  }

  /** The first folder on the way that this user may not go through. */
  get closedFolder(): string | undefined {
    const parts = this.folder.split('/').filter(Boolean);
    const folders = parts.map((_, index) => `/${parts.slice(0, index + 1).join('/')}`);
    return folders.find((folder) => {
      const state = this.system.state(folder);
      return state !== undefined && !this.user.mayUse(state, 1);
    });
  }

  /**
   * Whether somebody takes connections there. Not to be known where a listener may be out of sight: one of another network
   * namespace, or one that was bound by a relative path.
   */
  get listener(): 'there' | 'none' | 'unknown' {
    const names = this.#listening;
    if (names === undefined) return 'unknown';
    if (names.includes(this.absolute)) return 'there';
    const isMaybeThis = (name: string): boolean => !/^[/@]/.test(name) && basename(name) === basename(this.absolute);
    return names.some(isMaybeThis) || this.#hasOtherNetworks ? 'unknown' : 'none';
  }

  /** Names of the sockets of this network namespace that take connections. */
  get #listening(): string[] | undefined {
    const lines = this.system.text('/proc/net/unix')?.split('\n').slice(1);
    return lines
      ?.map((line) => line.trim().split(/\s+/))
      .filter((words) => (Number(`0x${words[3]}`) & LISTENS) !== 0)
      .map((words) => words.slice(7).join(' '));
  }

  /** Whether some process has another network namespace than this one, or may have. */
  get #hasOtherNetworks(): boolean {
    const network = (pid: number | 'self'): string | undefined => this.system.link(`/proc/${pid}/ns/net`);
    // Threads of the kernel, and processes that have ended, listen nowhere.
    const programs = this.#others.filter(({ arguments: words }) => words.length > 0);
    return programs.some(({ pid }) => network(pid) !== network('self'));
  }

  /** The memory that the front-end can share, a mapping for each file; empty where it cannot be seen. */
  get sharedMemory(): readonly Mapping[] {
    if (this.frontEnd === undefined) return [];
    const files = new Map<string, Mapping>();
    for (const each of mappings(this.system, this.frontEnd.pid)) {
      if (!isSharedMemory(each)) continue;
      const before = files.get(each.inode);
      files.set(each.inode, before === undefined ? each : { ...each, bytes: before.bytes + each.bytes });
    }
    return [...files.values()];
  }

  /** Whether the front-end's memory can be seen at all. */
  get isFrontEndVisible(): boolean {
    return this.frontEnd !== undefined && mappings(this.system, this.frontEnd.pid).length > 0;
  }
}

/** Memory of a file that another process can map too. */
const isSharedMemory = ({ isShared, isWritable, bytes, inode, path }: Mapping): boolean =>
  isShared &&
  isWritable &&
  bytes >= REGION_BYTES_MIN &&
  inode !== '0' &&
  !/^(anon_inode|\/dev\/(dri|vfio|kvm))/.test(path);

function isFrontEnd({ name, arguments: words }: Process, path: string): boolean {
  const names = words.some((word) => word.split(/[,=]/).includes(path));
  const isOne = FRONT_END.test(name) || words.some((word) => FRONT_END.test(word));
  return names && isOne && !words.some((word) => BACK_END.test(word));
}
