/** `virtio-pmd testpmd [EAL options] -- [testpmd options]`: reads the options that say whether there is anything to run. */

import { Command } from 'commander';
import type { Interrupt } from '../interrupt.js';
import { type EalOptions, parseEalOptions } from './options/eal-options.js';
import { readTestpmdOptions, wantsHelp } from './options/given-options.js';
import { helpText } from './options/help.js';
import { Refusal } from './options/refusal.js';
import { processOutput } from './output.js';
import { processors } from './processors.js';
import { refuse } from './refuse.js';

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
  const { run } = await import('./run.js');
  return await run(eal, given, interrupt);
}
