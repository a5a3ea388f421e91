/** Kernels and programs for guests: Debian packages that are downloaded and unpacked into the cache, not installed. */

import { existsSync, mkdirSync, readdirSync, renameSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

import { runCommand } from './commands.js';
import { runStep } from './run-step.js';

const CACHE = fileURLToPath(new URL('../../../.cache/guest', import.meta.url));

/** Kernel modules that a guest may want; the rest of them would fill the cache for nothing. */
const MODULES = [
  ...['drivers/virtio/*', 'drivers/vfio/*', 'drivers/uio/*', 'drivers/vhost/*', 'virt/lib/*', 'net/core/*'],
  ...['drivers/net/virtio_net.ko', 'drivers/net/net_failover.ko', 'drivers/net/tun.ko', 'drivers/net/tap.ko'],
  ...['drivers/block/virtio_blk.ko', 'drivers/char/virtio_console.ko', 'net/packet/*', 'net/ipv6/ipv6.ko'],
  ...['net/9p/*', 'fs/9p/*', 'fs/fscache/*', 'fs/netfs/*', 'fs/fuse/*', 'fs/overlayfs/*', 'fs/squashfs/*'],
  ...['net/8021q/*', 'net/802/*', 'net/llc/*', 'net/sched/*', 'drivers/net/dummy.ko', 'lib/*'],
];
const MODULE_PATTERNS = [...MODULES.map((path) => `*/kernel/${path}`), '*/modules.builtin'];

/** What is taken out of each package, as tar's wildcards. */
const CONTENTS = {
  'linux-image-amd64': ['./boot/vmlinuz-*', ...MODULE_PATTERNS],
  'user-mode-linux': ['*/bin/linux.uml', ...MODULE_PATTERNS],
  'busybox-static': ['*/bin/busybox'],
} as const satisfies Readonly<Record<string, readonly string[]>>;
export type GuestPackage = keyof typeof CONTENTS;

/** Where the package is unpacked; the folder is there only when all of it is. */
export const packageFolder = (name: GuestPackage): string => join(CACHE, name);

/** Where what is made of the packages is kept. */
export const guestCache = (): string => CACHE;

/** The package that `name` stands for: a kernel's is named after its version. */
async function packageWithFiles(name: GuestPackage): Promise<string> {
  if (!name.startsWith('linux-image')) return name;
  const [, versioned] = /Depends: (linux-image-\S+)/.exec(await runCommand('apt-cache', ['depends', name])) ?? [];
  if (versioned === undefined) throw new Error(`${name} names no kernel package`);
  return versioned;
}

/**
 * Downloads a package with apt, which checks its signature, and unpacks what guests need of it. Needs no root.
 *
 * @throws Error when it cannot be had, with the reason
 */
export async function unpackPackage(name: GuestPackage): Promise<void> {
  const folder = packageFolder(name);
  if (existsSync(folder)) return;
  const unfinished = `${folder}.${process.pid}`;
  try {
    const files = join(unfinished, 'files');
    mkdirSync(files, { recursive: true });
    const wanted = await packageWithFiles(name);
    await runStep(`downloading ${wanted}`, 'apt-get', ['download', '-qq', wanted], { cwd: unfinished });
    const archive = readdirSync(unfinished).find((file) => file.endsWith('.deb'));
    if (archive === undefined) throw new Error(`apt-get download left no package of ${wanted}`);
    const unpack = 'archive=$1; shift; dpkg-deb --fsys-tarfile "$archive" | tar -x -C files --wildcards "$@" || true';
    await runStep(`unpacking ${wanted}`, 'sh', ['-c', unpack, 'sh', archive, ...CONTENTS[name]], { cwd: unfinished });
    if (readdirSync(files).length === 0) throw new Error(`${archive} holds nothing that guests need`);
    renameSync(files, folder);
  } finally {
    rmSync(unfinished, { recursive: true, force: true });
  }
}
