/** `virtio-pmd testpmd [EAL options] -- [testpmd options]`: one run of it, from its options to its last line. */

import { readFileSync } from 'node:fs';
import { Command } from 'commander';
import type { Interrupt } from '../interrupt.js';
import { allCommands } from './command-table.js';
import { showPeriodically } from './commands/stats-period.js';
import { Interpreter, runFile } from './console/interpreter.js';
import { servePipe } from './console/pipe-console.js';
import { serveTerminal } from './console/terminal-console.js';
import { deviceMakers } from './device-makers.js';
import { startForwarding } from './forward-control.js';
import { type EalOptions, parseEalOptions } from './options/eal-options.js';
import type { GivenLine } from './options/getopt.js';
import { helpText } from './options/help.js';
import { Refusal, refusalLines } from './options/refusal.js';
import { readTestpmdOptions, wantsHelp, wantsRecords } from './options/testpmd-options.js';
import { processOutput, recordOutput } from './output.js';
import { processors } from './processors.js';
import { closeAll, configure, findPorts, shutDown, startUp } from './start-up.js';
import type { Testpmd } from './testpmd.js';

/** As the list of commands shows it; its own command line is DPDK's, which is no matter of the parser's. */
export const testpmdCommand = (): Command =>
  new Command('testpmd').description('forwards packets between ports, by the options and commands of dpdk-testpmd');

/** Runs it. @returns the exit status: 0, or 1 where testpmd ends by itself */
export async function runTestpmd(args: readonly string[], interrupt: Interrupt): Promise<number> {
  let eal: EalOptions;
  try {
    eal = parseEalOptions(args, processors());
  } catch (error) {
    if (error instanceof Refusal) processOutput.warn(error.message);
    return refuse(error instanceof Refusal ? new Refusal('Cannot init EAL: Invalid argument') : error);
  }
  const given = readTestpmdOptions(eal.rest);
  if (eal.wantsHelp || wantsHelp(given)) {
    processOutput.write(helpText());
    return 0;
  }
  const output = wantsRecords(given) ? recordOutput : processOutput;
  for (const note of eal.noted) output.warn(`EAL: ${note}`);
  let testpmd: Testpmd;
  try {
    testpmd = await findPorts(eal, given, output, deviceMakers);
  } catch (error) {
    return refuse(error);
  }
  return await runWith(testpmd, given, interrupt.signal);
}

/** With its ports found: until the last command, or until testpmd ends by itself. */
async function runWith(testpmd: Testpmd, given: GivenLine, signal: AbortSignal): Promise<number> {
  try {
    configure(testpmd, given);
    await startUp(testpmd);
    await serve(testpmd, signal);
  } catch (error) {
    const status = refuse(error);
    await closeAll(testpmd);
    return status;
  }
  await shutDown(testpmd);
  return 0;
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

/** Says why it ends, as testpmd does. */
function refuse(error: unknown): number {
  if (!(error instanceof Refusal)) throw error;
  processOutput.warn(refusalLines(error.message));
  return 1;
}
