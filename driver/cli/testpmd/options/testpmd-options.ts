/** testpmd's own options, those behind `--`: applied in their order, with its complaints. */

import type { Testpmd } from '../testpmd.js';
import { applicationOptions } from './application-options.js';
import { deviceOptions } from './device-options.js';
import type { GivenLine } from './getopt.js';
import type { OptionHandlers } from './option-handler.js';
import { type OptionName, withoutEffect } from './option-rules.js';
import { packetOptions } from './packet-options.js';
import { refusal } from './refusal.js';

const handlers: OptionHandlers = { ...applicationOptions, ...deviceOptions, ...packetOptions };

/**
 * Does what the options say.
 *
 * @throws VirtioError INVALID_ARGUMENT with the cause that testpmd names when it ends
 */
export function applyTestpmdOptions(testpmd: Testpmd, { options, operands }: GivenLine): void {
  const { output, settings } = testpmd;
  for (const option of options) {
    if ('error' in option) {
      output.warn(`virtio-pmd testpmd: ${option.error}`);
      output.warn(`Invalid option: ${option.argument}`);
      throw refusal('Command line is incomplete or incorrect');
    }
    const handler = handlers[option.name as OptionName];
    if (handler !== undefined) handler(testpmd, option.value ?? '');
    else if (!withoutEffect.has(option.name)) throw new Error(`option ${option.name} has no handler`);
  }
  if (operands.length > 0) {
    output.warn(`Invalid parameter: ${operands[0]}`);
    throw refusal('Command line is incorrect');
  }
  if (settings.txFirst && settings.isInteractive) {
    throw refusal('--tx-first cannot be used on interactive mode.');
  }
  if (settings.txFirst && settings.lscInterrupt) {
    output.warn('Warning: lsc_interrupt needs to be off when using tx_first. Disabling.');
    settings.lscInterrupt = false;
  }
  const { rxQueues, txQueues } = settings;
  if (rxQueues > 1 && rxQueues > txQueues) {
    output.warn(
      `Warning: nb_rxq=${rxQueues} enables RSS configuration, but nb_txq=${txQueues} will prevent to fully test it.`,
    );
  }
}
