/** Where every poll thread begins: pins itself, loads the module it is for, runs it, says how it ended. */

import { writeFileSync } from 'node:fs';
import { parentPort, workerData } from 'node:worker_threads';
import { native } from '../../native/index.js';
import { ErrorCode, VirtioError } from '../errors.js';
import { errorData, StopFlag } from './command-word.js';
import type { LcoreContext } from './context.js';
import type { LcoreNotice, LcoreWorkerData } from './lcore.js';

const { entry, cpu, name, data, word, wakeFd, port } = workerData as LcoreWorkerData;

const say = (notice: LcoreNotice): void => parentPort?.postMessage(notice);

/** What the kernel calls this thread (proc(5), `/proc/PID/task/TID/comm`); it keeps 15 characters. */
function nameThread(): void {
  try {
    writeFileSync('/proc/thread-self/comm', name);
  } catch {
    // Without /proc it has no name, and does its work all the same.
  }
}

function pin(processor: number): void {
  try {
    native.setAffinity([processor]);
  } catch (cause) {
    throw new VirtioError(ErrorCode.INVALID_ARGUMENT, `a thread cannot be pinned to processor ${processor}`, {
      value: processor,
      advice: 'use processors that exist and that this process may run on (taskset -p)',
      cause,
    });
  }
}

nameThread();
try {
  if (cpu !== undefined) pin(cpu);
  const module = (await import(entry)) as { lcoreMain?: (context: LcoreContext) => unknown };
  if (module.lcoreMain === undefined) throw new Error(`${entry} has no export lcoreMain`);
  const stop = new StopFlag(new Int32Array(word), port, wakeFd);
  say({ type: 'ready' });
  const result = await module.lcoreMain({ stop, data, cpu, emit: (event) => say({ type: 'event', event }) });
  say({ type: 'finished', result });
} catch (error) {
  say({ type: 'failed', error: errorData(error) });
} finally {
  port.close();
}
