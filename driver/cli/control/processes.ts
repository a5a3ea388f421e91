/** The commands of this user that run now, as their control sockets tell. */

import { lstatSync, rmSync } from 'node:fs';
import { basename } from 'node:path';
import { ErrorCode, VirtioError } from '../../errors.js';
import { checkProcess } from '../snapshot/check-snapshot.js';
import type { ProcessInfo } from '../snapshot/snapshot.js';
import { ControlClient } from './client.js';
import { searchedFolders, socketsIn } from './folders.js';

export interface RunningProcess extends ProcessInfo {
  /** Its control socket. */
  readonly socket: string;
}

/** One that is busy answers later than that, and is left out. */
const PATIENCE_MS = 2000;

/** Resolves to those that answer, in the order of their start; removes the sockets that others left behind. */
export async function runningProcesses(folders = searchedFolders()): Promise<RunningProcess[]> {
  const sockets = folders.flatMap(socketsIn);
  const found = await Promise.all(sockets.map(({ path }) => ask(path)));
  return found.flatMap((each) => each ?? []).sort((a, b) => a.startedAt - b.startedAt);
}

async function ask(socket: string): Promise<RunningProcess | undefined> {
  let client: ControlClient | undefined;
  try {
    client = await ControlClient.connect(socket, PATIENCE_MS);
    return { ...checkProcess(await client.request('process')), socket };
  } catch (error) {
    // Whoever took the connection is there, even when it ended it.
    if (client === undefined && isLeft(socket, error)) rmSync(socket, { force: true });
    return undefined;
  } finally {
    client?.close();
  }
}

/** Removes a socket file that nobody listens on, of a process that is gone; leaves anything else alone. */
export async function removeIfLeft(socket: string): Promise<void> {
  if (lstatSync(socket, { throwIfNoEntry: false })?.isSocket() !== true || isAlive(socket)) return;
  try {
    (await ControlClient.connect(socket, PATIENCE_MS)).close();
  } catch (error) {
    if (isLeft(socket, error)) rmSync(socket, { force: true });
  }
}

/** A process that is about to listen is there; in another container it may have any number, and answers. */
const isLeft = (socket: string, error: unknown): boolean =>
  error instanceof VirtioError && error.code === ErrorCode.PEER_GONE && !isAlive(socket);

/** Whether another process than this one has the number that is the name, where it is one. */
function isAlive(socket: string): boolean {
  const pid = Number(/^(\d+)\.sock$/.exec(basename(socket))?.[1] ?? process.pid);
  if (pid === process.pid) return false;
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === 'EPERM';
  }
}
