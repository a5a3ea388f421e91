/** EAL's options, those before `--`: what is taken, what is noted, and what is refused by name. */

import { getopt, type OptionRules } from './getopt.js';
import { type LcoreMap, lcoresOfList, lcoresOfMap, lcoresOfMask } from './lcore-list.js';
import { Refusal } from './refusal.js';

export interface EalOptions {
  readonly lcores: LcoreMap;
  readonly mainLcore: number;
  /** `net_null0` and what follows, as given. */
  readonly vdevs: readonly string[];
  /** PCI devices, with their devargs. */
  readonly allowed: readonly string[];
  readonly blocked: readonly string[];
  readonly usesPci: boolean;
  readonly usesHugepages: boolean;
  readonly wantsHelp: boolean;
  readonly wantsVersion: boolean;
  /** Options that change nothing here. */
  readonly noted: readonly string[];
  /** What follows `--`. */
  readonly rest: readonly string[];
}

/** Of EAL's usual form: short letters and long names. */
const rules = {
  a: 'required',
  allow: 'required',
  b: 'required',
  block: 'required',
  c: 'required',
  d: 'required',
  h: 'none',
  l: 'required',
  m: 'required',
  n: 'required',
  r: 'required',
  s: 'required',
  S: 'required',
  v: 'none',
  'base-virtaddr': 'required',
  'create-uio-dev': 'none',
  'file-prefix': 'required',
  'force-max-simd-bitwidth': 'required',
  help: 'none',
  'huge-dir': 'required',
  'huge-unlink': 'optional',
  'huge-worker-stack': 'optional',
  'in-memory': 'none',
  'iova-mode': 'required',
  lcores: 'required',
  'legacy-mem': 'none',
  'log-level': 'required',
  'main-lcore': 'required',
  'match-allocations': 'none',
  'mbuf-pool-ops-name': 'required',
  'no-hpet': 'none',
  'no-huge': 'none',
  'no-pci': 'none',
  'no-shconf': 'none',
  'no-telemetry': 'none',
  'proc-type': 'required',
  'single-file-segments': 'none',
  'socket-limit': 'required',
  'socket-mem': 'required',
  syslog: 'required',
  telemetry: 'none',
  trace: 'required',
  'trace-bufsz': 'required',
  'trace-dir': 'required',
  'trace-mode': 'required',
  vdev: 'required',
  'vfio-intr': 'required',
  'vfio-vf-token': 'required',
  'vmware-tsc-map': 'none',
} as const satisfies OptionRules;

/** They would do something that is not done here, and a note would not be enough. */
const refused: Readonly<Record<string, string>> = {
  s: 'there are no service cores',
  S: 'there are no service cores',
  trace: 'there are no trace points; NODE_DEBUG=virtio-pmd tells what goes on',
  'vfio-vf-token': 'virtual functions of a token are not opened',
};

/** Accepted, and worth a line: they change nothing. */
const noted = new Set(['d', 'mbuf-pool-ops-name', 'vfio-intr', 'legacy-mem', 'huge-worker-stack', 'create-uio-dev']);

/**
 * The options before `--`.
 *
 * @param cpus those that this process may run on
 * @throws Refusal with the lines that are said before the cause, which is always the same
 */
export function parseEalOptions(args: readonly string[], cpus: readonly number[]): EalOptions {
  const { options, operands } = getopt(args, rules, true);
  const vdevs: string[] = [];
  const allowed: string[] = [];
  const blocked: string[] = [];
  const notes: string[] = [];
  const flags = new Set<string>();
  let lcores: { readonly map: LcoreMap; readonly by: string } | undefined;
  let main: number | undefined;
  const setLcores = (by: string, map: LcoreMap | undefined, complaint: string): void => {
    if (map === undefined) throw invalid(complaint);
    const absent = [...map.values()].flat().find((cpu) => !cpus.includes(cpu));
    if (absent !== undefined) {
      throw invalid(
        `lcore ${absent} unavailable\n${complaint.replace(/ syntax$/, '')}, please check specified cores are part of ${ranges(cpus)}`,
      );
    }
    if (lcores !== undefined) throw invalid(`Option ${by} is ignored, because (${lcores.by}) is set!`);
    lcores = { map, by };
  };
  for (const option of options) {
    if ('error' in option) throw new Refusal(`virtio-pmd testpmd: ${option.error}`);
    const { name, value = '' } = option;
    const reason = refused[name];
    const shown = name.length === 1 ? `-${name}` : `--${name}`;
    if (reason !== undefined) throw invalid(`${shown} is not possible: ${reason}`);
    if (noted.has(name)) notes.push(`${shown} changes nothing here`);
    if (name === 'vdev') vdevs.push(value);
    else if (name === 'a' || name === 'allow') allowed.push(value);
    else if (name === 'b' || name === 'block') blocked.push(value);
    else if (name === 'l') setLcores('-l', lcoresOfList(value), 'invalid core list syntax');
    else if (name === 'c') setLcores('-c', lcoresOfMask(value), 'invalid coremask syntax');
    else if (name === 'lcores') setLcores('--lcores', lcoresOfMap(value), 'invalid parameter for --lcores');
    else if (name === 'main-lcore') main = mainLcoreOf(value);
    else if (name === 'proc-type' && value !== 'primary' && value !== 'auto') {
      throw invalid(`--proc-type=${value} is not possible: a process shares its memory with no other`);
    } else if (name === 'iova-mode' && value !== 'pa' && value !== 'va') {
      throw invalid('invalid parameters for --iova-mode');
    } else if (name === 'n' && !(Number.parseInt(value, 10) > 0)) throw invalid('invalid channel number');
    else flags.add(name);
  }
  if (allowed.length > 0 && blocked.length > 0) {
    throw invalid("Options allow (-a) and block (-b) can't be used at the same time");
  }
  if (flags.has('no-huge') && flags.has('in-memory')) {
    throw invalid('Option --legacy-mem is not compatible with --in-memory');
  }
  const map = lcores?.map ?? new Map(cpus.map((cpu) => [cpu, [cpu]]));
  const mainLcore = main ?? [...map.keys()][0] ?? 0;
  if (!map.has(mainLcore)) throw invalid('invalid parameter for --main-lcore');
  return {
    lcores: map,
    mainLcore,
    vdevs,
    allowed,
    blocked,
    usesPci: !flags.has('no-pci'),
    usesHugepages: !flags.has('no-huge'),
    wantsHelp: flags.has('h') || flags.has('help'),
    wantsVersion: flags.has('v'),
    noted: notes,
    rest: operands,
  };
}

const invalid = (message: string): Refusal => new Refusal(`EAL: ${message.replaceAll('\n', '\nEAL: ')}`);

function mainLcoreOf(value: string): number {
  if (!/^\d+$/.test(value)) throw invalid('invalid parameter for --main-lcore');
  return Number(value);
}

/** `0-1,4`. */
function ranges(numbers: readonly number[]): string {
  const runs: [first: number, last: number][] = [];
  for (const number of numbers) {
    const run = runs.at(-1);
    if (run !== undefined && run[1] === number - 1) run[1] = number;
    else runs.push([number, number]);
  }
  return runs.map(([first, last]) => (first === last ? `${first}` : `${first}-${last}`)).join(',');
}
