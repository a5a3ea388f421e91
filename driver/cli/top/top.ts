/** `virtio-pmd top`: finds what to look at, and shows it. */

import { runningProcesses } from '../control/processes.js';
import { asVirtioError, ExitStatus, printError, statusOf } from '../failure.js';
import type { Interrupt } from '../interrupt.js';
import { print } from '../output.js';
import { chooseProcess, PROCESS_HEADER, processText } from './choose.js';
import { showLoopback } from './loopback-view.js';
import type { TopOrder } from './options.js';
import { show } from './show.js';
import { attach, socketFor } from './source.js';

/** Runs the command; returns its exit status. */
export async function top(order: TopOrder, interrupt: Interrupt): Promise<number> {
  try {
    if (order.list === true) return await list(order.json === true);
    if (order.loopback === true) return await showLoopback(order, interrupt);
    const socket = order.target === undefined ? await chosenSocket(interrupt.signal) : socketFor(order.target);
    if (socket === undefined) return ExitStatus.SUCCESS;
    const end = await show(await attach(socket), order, interrupt.signal);
    if (end === 'gone') process.stderr.write(`virtio-pmd: note: the process behind ${socket} has ended\n`);
    return ExitStatus.SUCCESS;
  } catch (failure) {
    const error = asVirtioError(failure);
    printError(error);
    return statusOf(error);
  }
}

const chosenSocket = async (signal: AbortSignal): Promise<string | undefined> =>
  (await chooseProcess(await runningProcesses(), signal))?.socket;

async function list(isJson: boolean): Promise<number> {
  const running = await runningProcesses();
  const lines = running.length === 0 ? ['nothing runs'] : [PROCESS_HEADER, ...running.map(processText)];
  await print(isJson ? `${JSON.stringify(running)}\n` : lines.map((line) => `${line}\n`).join(''));
  return ExitStatus.SUCCESS;
}
