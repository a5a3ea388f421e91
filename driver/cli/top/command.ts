/** `virtio-pmd top` on the command line: its options, and what its help says. */

import { Argument, Command, Option } from 'commander';
import type { VirtioError } from '../../errors.js';
import { wrongUsage } from '../failure.js';
import type { Interrupt } from '../interrupt.js';
import { oneOf, seconds } from '../option-values.js';
import { FASTEST_MS, SORT_NAMES, type TopOptions } from './options.js';

const EXAMPLES = `
Examples:
  virtio-pmd top
      looks at the command of virtio-pmd that runs, or asks which
  virtio-pmd top 1234 --sort drops
      at process 1234, the queues that drop most at the top
  virtio-pmd top /run/virtio-pmd/1234.sock
      by its control socket: that of another user, as root
  virtio-pmd top --list
      what runs
  virtio-pmd top --once --json | jq '.queues[] | {queue, packetsPerSecond}'
      the rates of one second, for scripts
  virtio-pmd top --interval 5 >> rates.txt
      a table every five seconds, without control sequences
  virtio-pmd top --loopback -- --queues 2 --ring packed
      at traffic of its own: what is behind -- are options of virtio-pmd loopback

On a terminal: q quits, s sorts, v has a row for each port, i leaves out what is
idle, space stands still, ? shows all keys. It takes 80 columns and 24 lines; more
columns show more.

Rates are of the last interval. HITS is the share of polls that found something;
RING FILL is what the device has of a ring: empty buffers on the way of packets to
the driver, packets that wait on the other.

Exit status: 0 after q, Ctrl-C or the end of the process; 1 it could not look, or
the process answers no more; 2 wrong usage.`;

/** @throws VirtioError where options exclude each other */
function checkOptions(target: string | undefined, rest: readonly string[], options: TopOptions): void {
  const wrong = (message: string): VirtioError => wrongUsage(message, 'virtio-pmd top');
  const { loopback = false, list = false, once = false } = options;
  if (loopback && list) throw wrong('--loopback and --list exclude each other');
  if (loopback && target !== undefined && !target.startsWith('-')) {
    throw wrong(`--loopback looks at traffic of its own, not at ${target}; its options stand behind --`);
  }
  if (!loopback && rest.length > 0) throw wrong('it looks at one process at a time');
  if (list && target !== undefined) throw wrong(`--list shows all that runs, not ${target} alone`);
  if (list && once) throw wrong('--list is one list anyway, and has no --once');
}

export function topCommand(interrupt: Interrupt, finish: (status: number) => void): Command {
  return new Command('top')
    .summary('watch ports, queues, rates and drops of a command that runs')
    .description('Shows what a command of virtio-pmd does now: ports, queues, rates, drops, rings, polls, threads.')
    .helpOption('-h, --help', 'show this help')
    .addHelpText('after', EXAMPLES)
    .addArgument(new Argument('[process]', 'number of the process, or path of its control socket'))
    .addArgument(new Argument('[options...]', 'behind --: what --loopback is to do'))
    .addOption(
      new Option('--interval <S>', 'time between two looks, in seconds, from 0.1 on')
        .argParser(seconds('--interval', FASTEST_MS))
        .default(1000, '1'),
    )
    .addOption(
      new Option('--sort <KEY>', `what comes first: ${SORT_NAMES.join(', ')}`)
        .argParser(oneOf('--sort', SORT_NAMES))
        .default('port'),
    )
    .addOption(new Option('--once', 'print the rates of one interval, and exit'))
    .addOption(new Option('--json', 'print one JSON object a line for each interval'))
    .addOption(new Option('--list', 'print what runs, and exit'))
    .addOption(new Option('--loopback', 'run a loopback, and look at it'))
    .action(async (target: string | undefined, rest: readonly string[], options: TopOptions) => {
      checkOptions(target, rest, options);
      const { top } = await import('./top.js');
      const loopbackOptions = target === undefined ? rest : [target, ...rest];
      finish(
        await top(options.loopback === true ? { ...options, loopbackOptions } : { ...options, target }, interrupt),
      );
    });
}
