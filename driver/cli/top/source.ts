/** Where the view has its snapshots from. */

import { existsSync } from 'node:fs';
import { ErrorCode, VirtioError } from '../../errors.js';
import { ControlClient } from '../control/client.js';
import { searchedFolders, socketOf } from '../control/folders.js';
import { checkSnapshot } from '../snapshot/check-snapshot.js';
import type { Snapshot } from '../snapshot/snapshot.js';

export interface SnapshotSource {
  /** @throws VirtioError PEER_GONE when the process has ended, and others */
  take(): Promise<Snapshot>;
  /** Resolves when there will be no more. */
  readonly over: Promise<void>;
  /** Idempotent. */
  close(): void;
}

/** One who says nothing for two minutes is sent away; a view that is paused says nothing. */
const SIGN_OF_LIFE_MS = 30_000;

/** Attaches to a process by its control socket. @throws VirtioError as `ControlClient.connect` */
export async function attach(
  socket: string,
  patienceMs?: number,
  signOfLifeMs = SIGN_OF_LIFE_MS,
): Promise<SnapshotSource> {
  const client = await ControlClient.connect(socket, patienceMs);
  // Where it is not answered, the next snapshot is not either, and says so.
  const timer = setInterval(() => client.request('process').catch(() => undefined), signOfLifeMs).unref();
  void client.over.then(() => clearInterval(timer));
  return {
    take: async () => checkSnapshot(await client.request('snapshot')),
    over: client.over,
    close: () => client.close(),
  };
}

/** The control socket of a process, by its number or as its path. @throws VirtioError NOT_FOUND */
export function socketFor(target: string): string {
  if (!/^\d+$/.test(target)) return target;
  const found = searchedFolders()
    .map((folder) => socketOf(folder, Number(target)))
    .find((path) => existsSync(path));
  if (found !== undefined) return found;
  throw new VirtioError(ErrorCode.NOT_FOUND, `process ${target} has no control socket of this user's`, {
    value: target,
    advice: 'virtio-pmd top --list shows what runs; one of another user has its path as argument',
  });
}
