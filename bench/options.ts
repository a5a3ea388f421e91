/** The command line of `npm run bench`. */

import { Command, CommanderError, InvalidArgumentError } from 'commander';

import { VirtioError } from 'virtio-pmd';
import { AXES, type AxisName } from './axes.js';
import type { FrameSize } from './frames.js';
import { PAIRINGS, type PairingName } from './pairing.js';
import { PARTS, type PartName, QUICK_PARTS } from './parts.js';
import { choosePaths, PATHS, type RingPath } from './paths.js';
import type { MatrixChoice } from './scenario.js';
import { SAMPLES_MIN } from './statistics.js';

export interface BenchOptions extends MatrixChoice {
  readonly parts: readonly PartName[];
  readonly pairings: readonly PairingName[];
  /** What grows in the part of that name. */
  readonly axes: readonly AxisName[];
  /** Undisturbed rounds of each start. */
  readonly rounds: number;
  /** Times that every process is made anew. */
  readonly starts: number;
  /** How long packets are offered in a trial of the latency and the non-drop rate. */
  readonly trialSeconds: number;
  /** The share of packets that a trial may lose and pass. */
  readonly lossMax: number;
  readonly hugepages: boolean;
  /** Compare with the results that are there, instead of replacing them. */
  readonly check: boolean;
  /** Measure nothing: write tables, pictures and README from the results that are there. */
  readonly render: boolean;
  /** Where the JSON goes too. */
  readonly json: string | undefined;
  /** The folder that the report goes to, in place of bench/results and the README. */
  readonly out: string | undefined;
}

const STARTS = 2;
const TRIAL_SECONDS = 1;
const QUICK_TRIAL_SECONDS = 0.2;
const FRAME_BYTES_MIN = 60;
/** What fits a buffer of testpmd and one of ours. */
const FRAME_BYTES_MAX = 1518;
/** What net_vhost and virtio-user have. */
const QUEUES_MAX = 8;

const EXAMPLES = `
Examples:
  npm run bench                                  every part: paths, sizes, latency, growth and the rest; an hour
  npm run bench -- --quick                       under two minutes: ${QUICK_PARTS.join(', ')}
  npm run bench -- --only latency,non-drop       some parts; the others' results stay as they are
  npm run bench -- --only rates --path all --sizes 64
  npm run bench -- --only rates --full           ten paths, every size, 1 and 2 queues: hours
  npm run bench -- --quick --check               fail where a ratio is worse than the one in bench/results
  npm run bench -- --only non-drop --trial 60    RFC 2544's own length of a trial
  npm run bench -- --only rates --pairings ours-ours --json bench.json`;

/**
 * Reads the arguments after the program's name.
 *
 * @throws CommanderError when they are wrong (said on stderr already), or when help was asked for (exitCode 0).
 */
export function parseOptions(args: readonly string[]): BenchOptions {
  const program = new Command('bench')
    .description('Measures our driver and back-end beside DPDK, interleaved, between two processors.')
    .option('--only <list>', `parts to measure, of ${PARTS.join(', ')}`, listOf(oneOf(PARTS, 'part')))
    .option('--quick', 'one path, one start, short trials: under two minutes', false)
    .option('--full', 'the whole matrix', false)
    .option(
      '--check',
      'compare with bench/results, write nothing, and fail where a ratio is worse beyond the noise',
      false,
    )
    .option('--render', 'measure nothing; write tables, pictures and README from bench/results/bench.json', false)
    .option('--json <file>', 'write the report as JSON to this file too')
    .option('--out <folder>', 'write the report there, and leave bench/results and the README alone')
    .option('--pairings <list>', `of ${PAIRINGS.join(', ')} (driver's side first)`, listOf(oneOf(PAIRINGS, 'pairing')))
    .option('--path <list>', `all, or of ${PATHS.map((path) => path.name).join(', ')}`, parsePaths)
    .option('--sizes <list>', 'frame lengths in bytes, or imix: 64, 594 and 1518 bytes as 7:4:1', listOf(parseSize))
    .option('--queues <list>', 'numbers of queue pairs', listOf(numberFrom(1, QUEUES_MAX)))
    .option('--growth <list>', `what grows, of ${AXES.join(', ')}`, listOf(oneOf(AXES, 'axis')))
    .option('--rounds <n>', 'undisturbed rounds of each start', numberFrom(1, 1000), SAMPLES_MIN)
    .option(
      '--starts <n>',
      `times that all processes are made anew (default: ${STARTS}, with --quick 1)`,
      numberFrom(1, 1000),
    )
    .option(
      '--trial <seconds>',
      `length of a trial (default: ${TRIAL_SECONDS}, with --quick ${QUICK_TRIAL_SECONDS})`,
      decimalFrom(0.01, 3600),
    )
    .option('--loss <share>', 'share of packets that a non-drop trial may lose', decimalFrom(0, 1), 0)
    .option('--no-hugepages', 'do not ask the kernel for hugepages')
    .addHelpText('after', EXAMPLES)
    .exitOverride()
    .parse(args, { from: 'user' });
  const options = program.opts<{
    only?: PartName[];
    quick: boolean;
    full: boolean;
    check: boolean;
    render: boolean;
    json?: string;
    out?: string;
    pairings?: PairingName[];
    path?: RingPath[];
    sizes?: FrameSize[];
    queues?: number[];
    growth?: AxisName[];
    rounds: number;
    starts?: number;
    trial?: number;
    loss: number;
    hugepages: boolean;
  }>();
  const { quick, full, check, render, hugepages, rounds } = options;
  return {
    ...{ quick, full, check, render, hugepages, rounds },
    parts: options.only ?? (quick ? QUICK_PARTS : PARTS),
    pairings: options.pairings ?? PAIRINGS,
    axes: options.growth ?? AXES,
    paths: options.path,
    sizes: options.sizes,
    queues: options.queues,
    starts: options.starts ?? (quick ? 1 : STARTS),
    trialSeconds: options.trial ?? (quick ? QUICK_TRIAL_SECONDS : TRIAL_SECONDS),
    lossMax: options.loss,
    json: options.json,
    out: options.out,
  };
}

/** The exit status that belongs to a `CommanderError`: 2 for wrong usage. */
export const usageStatus = (error: CommanderError): number => (error.exitCode === 0 ? 0 : 2);

const listOf =
  <T>(parse: (text: string) => T) =>
  (list: string): T[] =>
    list.split(',').map(parse);

const oneOf =
  <T extends string>(names: readonly T[], what: string) =>
  (name: string): T => {
    const found = names.find((known) => known === name);
    if (found === undefined) throw new InvalidArgumentError(`There is no ${what} ${name}.`);
    return found;
  };

function parsePaths(list: string): RingPath[] {
  try {
    return choosePaths(list);
  } catch (error) {
    throw new InvalidArgumentError(error instanceof VirtioError ? error.message : String(error));
  }
}

const parseSize = (text: string): FrameSize =>
  text === 'imix' ? text : numberFrom(FRAME_BYTES_MIN, FRAME_BYTES_MAX)(text);

const numberFrom =
  (least: number, most: number) =>
  (text: string): number => {
    const value = /^\d+$/.test(text) ? Number(text) : Number.NaN;
    if (value >= least && value <= most) return value;
    throw new InvalidArgumentError(`${text} is not a whole number from ${least} to ${most}.`);
  };

const decimalFrom =
  (least: number, most: number) =>
  (text: string): number => {
    const value = /^\d+(\.\d+)?$/.test(text) ? Number(text) : Number.NaN;
    if (value >= least && value <= most) return value;
    throw new InvalidArgumentError(`${text} is not a number from ${least} to ${most}.`);
  };

export { CommanderError };
