/** Where control sockets are: `PID.sock` in a folder that is this user's alone. */

import { lstatSync, mkdirSync, readdirSync, rmdirSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { ErrorCode, isSystemError, VirtioError } from '../../errors.js';

const NAME = 'virtio-pmd';
const ENDING = '.sock';
/** Whoever may write to a folder may put sockets of his own there. */
const FOREIGN_WRITERS = 0o022;

interface Surroundings {
  readonly user: number;
  readonly runtimeFolder: string | undefined;
  readonly temporaryFolder: string;
}

const surroundings = (): Surroundings => ({
  user: process.getuid?.() ?? 0,
  runtimeFolder: process.env['XDG_RUNTIME_DIR'],
  temporaryFolder: tmpdir(),
});

/** Folders for a new socket, the best first. */
export function controlFolders({ user, runtimeFolder, temporaryFolder } = surroundings()): string[] {
  return [
    ...(runtimeFolder === undefined || runtimeFolder === '' ? [] : [join(runtimeFolder, NAME)]),
    ...(user === 0 ? [join('/run', NAME)] : []),
    join(temporaryFolder, `${NAME}-${user}`),
  ];
}

/** Where this user's sockets may be: a command may have been started elsewhere, with another environment. */
export function searchedFolders(here = surroundings()): string[] {
  return [
    ...new Set([
      ...controlFolders(here),
      join('/run/user', String(here.user), NAME),
      join('/tmp', `${NAME}-${here.user}`),
    ]),
  ];
}

export const socketOf = (folder: string, pid: number): string => join(folder, `${pid}${ENDING}`);

/** The sockets of a folder, each with the process that it is named after. Empty where there is no folder, or a foreign one. */
export function socketsIn(folder: string): { readonly path: string; readonly pid: number }[] {
  try {
    checkOwn(folder);
    return readdirSync(folder)
      .filter((name) => /^\d+\.sock$/.test(name))
      .map((name) => ({ path: join(folder, name), pid: Number(name.slice(0, -ENDING.length)) }));
  } catch {
    return [];
  }
}

/** Makes the folder where it is not there. @throws VirtioError PERMISSION_DENIED for one that others may write to, IO */
export function makeFolder(folder: string): void {
  try {
    mkdirSync(folder, { mode: 0o700 });
  } catch (error) {
    if (!isSystemError(error, 'EEXIST')) throw error;
  }
  checkOwn(folder);
}

/** Removes it when it is empty: others may have sockets there. */
export function leaveFolder(folder: string): void {
  try {
    rmdirSync(folder);
  } catch {
    // It is not empty, or gone.
  }
}

/** A link is followed nowhere: in a folder for everybody anyone may have put it there. */
function checkOwn(folder: string): void {
  const found = lstatSync(folder);
  if (found.isDirectory() && found.uid === process.getuid?.() && (found.mode & FOREIGN_WRITERS) === 0) return;
  throw new VirtioError(ErrorCode.PERMISSION_DENIED, `${folder} is no folder that only this user writes to`, {
    value: folder,
    advice: 'remove it, or set XDG_RUNTIME_DIR',
  });
}
