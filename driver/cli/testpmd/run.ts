/** One run of testpmd, from its options to its last line. */

import { readFileSync } from 'node:fs';
import type { Interrupt } from '../interrupt.js';
import { allCommands } from './command-table.js';
import { showPeriodically } from './commands/stats-period.js';
import { Interpreter, runFile } from './console/interpreter.js';
import { servePipe } from './console/pipe-console.js';
import { serveTerminal } from './console/terminal-console.js';
import { deviceMakers } from './device-makers.js';
import { startForwarding } from './forward-control.js';
import { openToOnlookers } from './onlookers.js';
import type { EalOptions } from './options/eal-options.js';
import type { GivenLine } from './options/getopt.js';
import { wantsRecords } from './options/given-options.js';
import { processOutput, recordOutput } from './output.js';
import { refuse } from './refuse.js';
import { closeAll, configure, findPorts, shutDown, startUp } from './start-up.js';
import type { Testpmd } from './testpmd.js';

/** Runs it by options that were read. @returns the exit status: 0, or 1 where testpmd ends by itself */
export async function run(eal: EalOptions, given: GivenLine, interrupt: Interrupt): Promise<number> {
  const output = wantsRecords(given) ? recordOutput : processOutput;
  for (const note of eal.noted) output.warn(`EAL: ${note}`);
  let testpmd: Testpmd;
  try {
    testpmd = await findPorts(eal, given, output, deviceMakers);
  } catch (error) {
    return refuse(error);
  }
  return await runWith(testpmd, given, interrupt);
}

/** With its ports found: until the last command, or until testpmd ends by itself. */
async function runWith(testpmd: Testpmd, given: GivenLine, interrupt: Interrupt): Promise<number> {
  let closeToOnlookers: (() => Promise<void>) | undefined;
  try {
    configure(testpmd, given);
    closeToOnlookers = await openToOnlookers(testpmd, interrupt);
    await startUp(testpmd);
    await serve(testpmd, interrupt.signal);
    await closeToOnlookers();
    await shutDown(testpmd);
    return 0;
  } catch (error) {
    try {
      await closeToOnlookers?.();
      return refuse(error);
    } finally {
      await closeAll(testpmd);
    }
  }
}

/** What runs until the end: commands, reports, or nothing but forwarding. */
async function serve(testpmd: Testpmd, signal: AbortSignal): Promise<void> {
  const { settings, output } = testpmd;
  const interpreter = new Interpreter(allCommands, testpmd);
  testpmd.runFile = (path) => load(interpreter, path);
  if (settings.cmdlineFile !== undefined) await testpmd.runFile(settings.cmdlineFile);
  if (settings.isInteractive) {
    if (settings.autoStart) {
      output.say('Start automatic packet forwarding');
      await startForwarding(testpmd, 0);
    }
    if (process.stdin.isTTY && process.stdout.isTTY) return await serveTerminal(interpreter, signal);
    return await servePipe(interpreter, process.stdin, signal);
  }
  output.say('No commandline core given, start packet forwarding');
  await startForwarding(testpmd, settings.txFirst ? 1 : 0);
  if (settings.statsPeriod > 0) return await showPeriodically(testpmd, signal);
  output.say('Press enter to exit');
  await anyInput(signal);
}

async function load(interpreter: Interpreter, path: string): Promise<void> {
  let text: string;
  try {
    text = readFileSync(path, 'utf8');
  } catch {
    return interpreter.output.warn(`Failed to create file based cmdline context: ${path}`);
  }
  await runFile(interpreter, text);
  interpreter.output.say(`Read CLI commands from ${path}`);
}

/** A character or the end of the input, or a signal. */
async function anyInput(signal: AbortSignal): Promise<void> {
  const { stdin } = process;
  await new Promise<void>((resolve) => {
    stdin.once('data', () => resolve());
    stdin.once('end', resolve);
    stdin.once('error', () => resolve());
    signal.addEventListener('abort', () => resolve(), { once: true });
    if (signal.aborted) resolve();
  });
  stdin.destroy();
}
