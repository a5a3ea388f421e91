/** A guest's kernel: its image, made quick to boot, and its modules in the order in which they load. */

import { existsSync, readdirSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { basename, join } from 'node:path';

import { runCommand } from './commands.js';
import { type GuestPackage, guestCache, packageFolder } from './guest-packages.js';

/** Offsets in a bzImage's setup header (Linux, Documentation/arch/x86/boot.rst). */
const SETUP_SECTORS = 0x1f1;
const PAYLOAD_OFFSET = 0x248;
const PAYLOAD_LENGTH = 0x24c;
const SECTOR_BYTES = 512;
const XZ_MAGIC = Buffer.from([0xfd, 0x37, 0x7a, 0x58, 0x5a, 0x00]);

/** Returns the path of the first file in `folder` or below whose name matches. */
function findFile(folder: string, name: RegExp): string {
  for (const entry of readdirSync(folder, { recursive: true, withFileTypes: true })) {
    if (entry.isFile() && name.test(entry.name)) return join(entry.parentPath, entry.name);
  }
  throw new Error(`${folder} holds no ${name}`);
}

/**
 * Returns the kernel to boot in a virtual machine.
 *
 * An emulated processor takes seconds to unpack the kernel, the host's takes one, once: QEMU boots the bare kernel just
 * as well (PVH). Where it is not packed with xz, or there is no xz, the packed one it is.
 */
export async function kernelImage(): Promise<string> {
  const packed = findFile(packageFolder('linux-image-amd64'), /^vmlinuz-/);
  const bare = join(guestCache(), basename(packed).replace('vmlinuz', 'vmlinux'));
  if (existsSync(bare)) return bare;
  const bytes = readFileSync(packed);
  const start = (bytes.readUInt8(SETUP_SECTORS) + 1) * SECTOR_BYTES + bytes.readUInt32LE(PAYLOAD_OFFSET);
  // Four bytes after the packed kernel say how long it is unpacked.
  const payload = bytes.subarray(start, start + bytes.readUInt32LE(PAYLOAD_LENGTH) - 4);
  if (!payload.subarray(0, XZ_MAGIC.length).equals(XZ_MAGIC)) return packed;
  const unfinished = `${bare}.${process.pid}`;
  try {
    writeFileSync(`${unfinished}.xz`, payload);
    await runCommand('xz', ['-d', '--single-stream', `${unfinished}.xz`]);
    renameSync(unfinished, bare);
    return bare;
  } catch {
    return packed;
  } finally {
    rmSync(`${unfinished}.xz`, { force: true });
    rmSync(unfinished, { force: true });
  }
}

/** Returns the program that is user-mode Linux. */
export const umlImage = (): string => findFile(packageFolder('user-mode-linux'), /^linux\.uml$/);

/** Returns the busybox that is in every guest. */
export const busyboxImage = (): string => findFile(packageFolder('busybox-static'), /^busybox$/);

export interface KernelModule {
  /** `virtio_net` */
  readonly name: string;
  readonly path: string;
}

/** File names may have a dash where the module's name has an underscore. */
const moduleName = (path: string): string => basename(path, '.ko').replaceAll('-', '_');

/** Names of the modules that this one needs, as its file says. */
function requirements(path: string): string[] {
  const bytes = readFileSync(path);
  const mark = '\0depends=';
  const start = bytes.indexOf(mark);
  if (start < 0) return [];
  const from = start + mark.length;
  return bytes.toString('latin1', from, bytes.indexOf(0, from)).split(',').filter(Boolean);
}

/**
 * Returns `names` and all that they need, in the order in which they load. What is built into the kernel is left out.
 *
 * @throws Error where the kernel has no such module
 */
export function modulesInOrder(kernel: GuestPackage, names: readonly string[]): KernelModule[] {
  const folder = packageFolder(kernel);
  const files = readdirSync(folder, { recursive: true, encoding: 'utf8' });
  const found = new Map(files.filter((file) => file.endsWith('.ko')).map((file) => [moduleName(file), file]));
  const builtin = readFileSync(findFile(folder, /^modules\.builtin$/), 'utf8').split('\n');
  const builtinNames = new Set(builtin.map(moduleName));
  const order = new Map<string, KernelModule>();
  const add = (wanted: string): void => {
    const name = moduleName(wanted);
    if (order.has(name)) return;
    const file = found.get(name);
    if (file === undefined) {
      if (builtinNames.has(name)) return;
      throw new Error(`${kernel} has no module ${name}`);
    }
    const path = join(folder, file);
    for (const required of requirements(path)) add(required);
    order.set(name, { name, path });
  };
  for (const name of names) add(name);
  return [...order.values()];
}
