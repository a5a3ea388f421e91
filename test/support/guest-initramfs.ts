/** The file system in memory that a guest starts from. */

import { readFileSync } from 'node:fs';
import { basename, dirname } from 'node:path';
import { fileURLToPath } from 'node:url';

import { runCommand } from './commands.js';
import { busyboxImage, modulesInOrder } from './guest-kernel.js';
import type { GuestPackage } from './guest-packages.js';

const INIT = fileURLToPath(new URL('../../../test/support/guest-init.sh', import.meta.url));

const Mode = { FOLDER: 0o040755, FILE: 0o100755, LINK: 0o120777 } as const;

/** An archive in the format that the kernel unpacks: cpio, "newc". */
class Archive {
  readonly #parts: Buffer[] = [];
  readonly #names = new Set<string>();
  #bytes = 0;

  /** Adds a file and the folders that it is in; one that is there already stays. */
  file(path: string, content: Uint8Array | string): void {
    this.#folders(dirname(path));
    this.#add(path, Mode.FILE, Buffer.from(content));
  }

  link(path: string, target: string): void {
    this.#folders(dirname(path));
    this.#add(path, Mode.LINK, Buffer.from(target));
  }

  folder(path: string): void {
    this.#folders(path);
  }

  finish(): Buffer {
    this.#add('TRAILER!!!', 0, Buffer.alloc(0));
    return Buffer.concat(this.#parts);
  }

  #folders(path: string): void {
    if (path === '.' || path === '/') return;
    this.#folders(dirname(path));
    this.#add(path, Mode.FOLDER, Buffer.alloc(0));
  }

  #add(path: string, mode: number, content: Buffer): void {
    const name = path.replace(/^\//, '');
    if (this.#names.has(name)) return;
    this.#names.add(name);
    // inode, mode, uid, gid, links, time, size, device (2), special device (2), name's size, checksum
    const fields = [this.#names.size, mode, 0, 0, 1, 0, content.length, 0, 0, 0, 0, Buffer.byteLength(name) + 1, 0];
    const header = `070701${fields.map((field) => field.toString(16).padStart(8, '0')).join('')}${name}\0`;
    this.#push(Buffer.from(header));
    this.#push(content);
  }

  /** Every part starts at a multiple of four. */
  #push(part: Buffer): void {
    const padding = Buffer.alloc(-(this.#bytes + part.length) & 3);
    this.#parts.push(part, padding);
    this.#bytes += part.length + padding.length;
  }
}

export interface InitramfsOptions {
  readonly kernel: GuestPackage;
  /** Modules that are loaded at the start, with all that they need. */
  readonly modules: readonly string[];
  /** Modules that are there for `load NAME`, with all that they need. */
  readonly moreModules?: readonly string[] | undefined;
  /** Programs of the host, by their paths, that the guest gets with their libraries. */
  readonly programs?: readonly string[] | undefined;
  /** More files: content by path. */
  readonly files?: Readonly<Record<string, Uint8Array | string>> | undefined;
}

/** Returns the archive: busybox, the modules, what else is asked for, and an /init that ends in a loop of commands. */
export async function buildInitramfs(options: InitramfsOptions): Promise<Buffer> {
  const archive = new Archive();
  for (const folder of ['proc', 'sys', 'dev', 'tmp', 'run', 'root', 'host', 'sbin', 'usr/bin', 'usr/sbin'])
    archive.folder(folder);
  archive.file('init', readFileSync(INIT));
  const busybox = busyboxImage();
  archive.file('bin/busybox', readFileSync(busybox));
  for (const applet of (await runCommand(busybox, ['--list'])).split('\n').filter(Boolean)) {
    if (applet !== 'busybox') archive.link(`bin/${applet}`, 'busybox');
  }
  const addModules = (list: string, names: readonly string[]): void => {
    const modules = modulesInOrder(options.kernel, names);
    for (const { name, path } of modules) archive.file(`modules/${name}.ko`, readFileSync(path));
    archive.file(`modules/${list}`, modules.map(({ name }) => `${name}\n`).join(''));
  };
  addModules('start.list', options.modules);
  for (const name of options.moreModules ?? []) addModules(`${name}.list`, [name]);
  for (const program of options.programs ?? []) {
    archive.file(`usr/sbin/${basename(program)}`, readFileSync(program));
    // Each line names a library's path, or says that there is none.
    for (const [library] of (await runCommand('ldd', [program]).catch(() => '')).matchAll(/\/[^ ]+/g))
      archive.file(library, readFileSync(library));
  }
  for (const [path, content] of Object.entries(options.files ?? {})) archive.file(path, content);
  return archive.finish();
}
