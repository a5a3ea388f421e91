/** testpmd's own options, those behind `--`: applied in their order, with its complaints. */

import type { Testpmd } from '../testpmd.js';
import { applicationOptions } from './application-options.js';
import { deviceOptions } from './device-options.js';
import { type GivenLine, getopt } from './getopt.js';
import { atoi, type OptionHandlers } from './option-handler.js';
import { type OptionName, optionRules, withoutEffect } from './option-rules.js';
import { packetOptions } from './packet-options.js';
import { refusal } from './refusal.js';

const handlers: OptionHandlers = { ...applicationOptions, ...deviceOptions, ...packetOptions };

export const readTestpmdOptions = (args: readonly string[]): GivenLine => getopt(args, optionRules);

/** What the pool of all packets is made from, before there are ports. */
export function poolOptions({ options }: GivenLine): {
  readonly mbufBytes: number;
  readonly mbufs: number;
  readonly cache: number;
} {
  const valueOf = (name: OptionName): string | undefined => {
    const found = options.findLast((option) => 'name' in option && option.name === name);
    return found !== undefined && 'name' in found ? found.value : undefined;
  };
  return {
    mbufBytes: atoi(valueOf('mbuf-size') ?? '2176'),
    mbufs: atoi(valueOf('total-num-mbufs') ?? '0'),
    cache: atoi(valueOf('mbcache') ?? '250'),
  };
}

export const wantsHelp = (given: GivenLine): boolean => has(given, 'h', 'help');

/** Whether reports are to be records: it decides what is said from the beginning. */
export const wantsRecords = (given: GivenLine): boolean => has(given, 'json');

const has = ({ options }: GivenLine, ...names: readonly string[]): boolean =>
  options.some((option) => 'name' in option && names.includes(option.name));

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
