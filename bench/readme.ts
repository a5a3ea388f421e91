/** The figures of the README, taken from the results: what is between two markers is written by this. */

import { ErrorCode, VirtioError } from 'virtio-pmd';
import type { Placement } from './regime.js';
import type { Report } from './report.js';
import type { Result } from './results.js';

/** The path whose figures are told. */
const PATH = 'split_mergeable';

const MARKERS = /(<!-- bench:([a-z-]+) -->\n)[\s\S]*?(\n<!-- \/bench -->)/g;

/** What two processors are to each other, in words. */
const PLACES: Readonly<Record<Placement, string>> = {
  'distant-cores': 'two cores of an # that share no cache',
  'near-cores': 'two cores of an # that share a cache',
  'two-threads': 'two threads of one core of an #',
};

/** What is between the markers of each name. */
const PARAGRAPHS: Readonly<Record<string, (report: Report) => string>> = { rates: ratesParagraph };

/**
 * The text with everything between markers replaced.
 *
 * @throws VirtioError BAD_FORMAT for markers of no name that is known, NOT_FOUND where the results lack a figure
 */
export function fillReadme(text: string, report: Report): string {
  return text.replace(MARKERS, (_, begin: string, name: string, end: string) => {
    const paragraph = PARAGRAPHS[name];
    if (paragraph === undefined) {
      throw new VirtioError(
        ErrorCode.BAD_FORMAT,
        `the README has markers of ${name}, which is no paragraph of the bench`,
        {
          value: name,
        },
      );
    }
    return begin + paragraph(report) + end;
  });
}

function ratesParagraph(report: Report): string {
  const of = (pairing: string, size: number): Result => find(report, pairing, size);
  const ratios = ['ours-dpdk', 'dpdk-ours', 'ours-ours'].map((pairing) => of(pairing, 64).ratio ?? 0);
  const [least, most] = [Math.min(...ratios), Math.max(...ratios)].map((ratio) => ratio.toFixed(1));
  const base = of('dpdk-dpdk', 64);
  const { machine, versions } = report;
  const place = (PLACES[base.placement ?? 'near-cores'] ?? '#').replace('#', machine.processor);
  const node = versions.node.replace(/^v(\d+).*/, '$1');
  const dpdk = versions.dpdk.split('.').slice(0, 2).join('.');
  return wrapped(
    `**${least === most ? least : `${least} to ${most}`} times DPDK's rate** for 64-byte packets, driver and back-end on one core each: ` +
      `${of('ours-ours', 64).mpps.median.toFixed(1)} million a second where DPDK's virtio-user and ` +
      `\`net_vhost\` make ${base.mpps.median.toFixed(1)} in the same run, on ${place}, Node ${node}, DPDK ${dpdk} (\`npm run bench\`, ` +
      '[bench/results](bench/results/bench.md)). As a switch between two DPDK guests it makes ' +
      `${(of('switch-ours', 64).ratio ?? 0).toFixed(1)} times what testpmd's \`io\` does with 64 bytes, and ` +
      `${(of('switch-ours', 1518).ratio ?? 0).toFixed(1)} times with 1518.`,
  );
}

function find({ results }: Report, pairing: string, size: number): Result {
  const found = results.find(
    (result) => result.pairing === pairing && result.path === PATH && result.size === size && result.queues === 1,
  );
  if (found !== undefined) return found;
  throw new VirtioError(ErrorCode.NOT_FOUND, `the results have no ${pairing} on ${PATH} with ${size} bytes`, {
    value: pairing,
    advice: 'npm run bench -- --only rates',
  });
}

const LINE = 140;

/** Lines of at most so many characters. */
function wrapped(text: string): string {
  const lines: string[] = [''];
  for (const word of text.split(' ')) {
    const line = lines.at(-1)!;
    if (line === '') lines[lines.length - 1] = word;
    else if (line.length + 1 + word.length <= LINE) lines[lines.length - 1] = `${line} ${word}`;
    else lines.push(word);
  }
  return lines.join('\n');
}
