/** The command line of `npm run bench`. */

import { Command, CommanderError, InvalidArgumentError } from 'commander';

import { VirtioError } from 'virtio-pmd';
import { PAIRINGS, type PairingName } from './pairing.js';
import { choosePaths, DEFAULT_PATHS, PATHS, type RingPath } from './paths.js';
import { SAMPLES_MIN } from './statistics.js';

export interface BenchOptions {
  readonly pairings: readonly PairingName[];
  readonly paths: readonly RingPath[];
  readonly sizes: readonly number[];
  /** Undisturbed rounds of each start. */
  readonly rounds: number;
  /** Times that every process is made anew. */
  readonly starts: number;
  readonly quick: boolean;
  readonly hugepages: boolean;
  /** Where the JSON goes too. */
  readonly json: string | undefined;
}

/** What `--quick` measures: one path, one start. */
const QUICK = { path: 'split_mergeable', starts: 1 } as const;
const STARTS = 3;
const FRAME_BYTES_MIN = 60;
/** What fits a buffer of testpmd and one of ours. */
const FRAME_BYTES_MAX = 1518;

const EXAMPLES = `
Examples:
  npm run bench                                  the usual: two paths, 64 and 1518 bytes, ${STARTS} starts
  npm run bench -- --quick                       under two minutes
  npm run bench -- --path all --sizes 64         the ten paths of DPDK's loop-back plan
  npm run bench -- --pairings ours-ours --json bench.json`;

/**
 * Reads the arguments after the program's name.
 *
 * @throws CommanderError when they are wrong (said on stderr already), or when help was asked for (exitCode 0).
 */
export function parseOptions(args: readonly string[]): BenchOptions {
  const program = new Command('bench')
    .description('Measures our driver and back-end beside DPDK, interleaved, between two processors.')
    .option('--json <file>', 'write the report as JSON to this file too')
    .option('--quick', 'one path, one start: under two minutes', false)
    .option('--pairings <list>', `of ${PAIRINGS.join(', ')} (driver's side first)`, parsePairings, [...PAIRINGS])
    .option('--path <list>', `all, or of ${PATHS.map((path) => path.name).join(', ')}`, parsePaths)
    .option('--sizes <list>', 'frame lengths in bytes', parseSizes, [64, 1518])
    .option('--rounds <n>', 'undisturbed rounds of each start', parseCount, SAMPLES_MIN)
    .option('--starts <n>', `times that all processes are made anew (default: ${STARTS}, with --quick 1)`, parseCount)
    .option('--no-hugepages', 'do not ask the kernel for hugepages')
    .addHelpText('after', EXAMPLES)
    .exitOverride()
    .parse(args, { from: 'user' });
  const options = program.opts<{
    json?: string;
    quick: boolean;
    pairings: PairingName[];
    path?: RingPath[];
    sizes: number[];
    rounds: number;
    starts?: number;
    hugepages: boolean;
  }>();
  const defaultPaths = options.quick ? QUICK.path : DEFAULT_PATHS.join(',');
  return {
    ...options,
    paths: options.path ?? choosePaths(defaultPaths),
    starts: options.starts ?? (options.quick ? QUICK.starts : STARTS),
    json: options.json,
  };
}

/** The exit status that belongs to a `CommanderError`: 2 for wrong usage. */
export const usageStatus = (error: CommanderError): number => (error.exitCode === 0 ? 0 : 2);

function parsePairings(list: string): PairingName[] {
  return list.split(',').map((name) => {
    const found = PAIRINGS.find((pairing) => pairing === name);
    if (found === undefined) throw new InvalidArgumentError(`There is no pairing ${name}.`);
    return found;
  });
}

function parsePaths(list: string): RingPath[] {
  try {
    return choosePaths(list);
  } catch (error) {
    throw new InvalidArgumentError(error instanceof VirtioError ? error.message : String(error));
  }
}

const parseSizes = (list: string): number[] =>
  list.split(',').map((text) => parseNumber(text, FRAME_BYTES_MIN, FRAME_BYTES_MAX));

const parseCount = (text: string): number => parseNumber(text, 1, 1000);

function parseNumber(text: string, least: number, most: number): number {
  const value = /^\d+$/.test(text) ? Number(text) : Number.NaN;
  if (value >= least && value <= most) return value;
  throw new InvalidArgumentError(`${text} is not a whole number from ${least} to ${most}.`);
}

export { CommanderError };
