/** Lets a command that runs be looked at: the one call that it makes for that. */

import { rmSync } from 'node:fs';
import { asVirtioError } from '../failure.js';
import type { Interrupt } from '../interrupt.js';
import type { Snapshot } from '../snapshot/snapshot.js';
import { controlFolders, leaveFolder, makeFolder, socketOf, socketsIn } from './folders.js';
import { removeIfLeft } from './processes.js';
import type { ControlMethods } from './protocol.js';
import { ControlServer } from './server.js';

/** What `--control-socket` and `--no-control-socket` leave: a path, or none; undefined for the usual place. */
export type ControlChoice = string | false | undefined;

/** However many look, and however often: a snapshot is not taken anew within so many milliseconds. */
const FRESH_MS = 50;

/** A control socket that is open. */
export interface Control {
  /** Where it listens; undefined where it does not. */
  readonly path: string | undefined;
  /** Idempotent. */
  close(): Promise<void>;
}

/**
 * Opens the control socket of this process.
 *
 * In the usual place it is an extra: where it cannot be, that is noted, and the command runs all the same.
 * @throws VirtioError where a path that was asked for cannot be had
 */
export async function openControl(
  choice: ControlChoice,
  takeSnapshot: () => Snapshot,
  interrupt: Interrupt,
): Promise<Control> {
  if (choice === false) return { path: undefined, close: async () => undefined };
  const methods = controlMethods(takeSnapshot);
  if (choice !== undefined) return listen(choice, methods, interrupt);
  let failure: unknown;
  for (const folder of controlFolders()) {
    try {
      return await listenIn(folder, methods, interrupt);
    } catch (error) {
      failure ??= error;
    }
  }
  process.stderr.write(`virtio-pmd: note: no control socket, ${asVirtioError(failure).message}\n`);
  return { path: undefined, close: async () => undefined };
}

function controlMethods(takeSnapshot: () => Snapshot): ControlMethods {
  let last: Snapshot | undefined;
  let takenAt = Number.NEGATIVE_INFINITY;
  const snapshot = (): Snapshot => {
    if (last === undefined || performance.now() - takenAt >= FRESH_MS) {
      last = takeSnapshot();
      takenAt = performance.now();
    }
    return last;
  };
  return { process: () => snapshot().process, snapshot };
}

async function listen(path: string, methods: ControlMethods, interrupt: Interrupt): Promise<Control> {
  await removeIfLeft(path);
  const server = await ControlServer.listen(path, methods);
  const forget = interrupt.onForce(() => rmSync(path, { force: true }));
  return {
    path,
    close: async () => {
      await server.close();
      forget();
    },
  };
}

async function listenIn(folder: string, methods: ControlMethods, interrupt: Interrupt): Promise<Control> {
  makeFolder(folder);
  await Promise.all(socketsIn(folder).map(({ path }) => removeIfLeft(path)));
  // Whoever ended meanwhile has taken the folder along.
  makeFolder(folder);
  const { path, close } = await listen(socketOf(folder, process.pid), methods, interrupt);
  const forget = interrupt.onForce(() => leaveFolder(folder));
  return {
    path,
    close: async () => {
      await close();
      leaveFolder(folder);
      forget();
    },
  };
}
