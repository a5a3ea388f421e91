/** A whole run: every path and size, in several starts. */

import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { Contenders, possiblePairings, probeWith, type Skipped, startProbe } from './contenders.js';
import { chooseCores } from './cores.js';
import { HugepageReservation } from './hugepages.js';
import type { Limit } from './limit.js';
import { readMachine, readVersions } from './machine.js';
import type { BenchOptions } from './options.js';
import { type PairingName, processesOf } from './pairing.js';
import type { RingPath } from './paths.js';
import type { Progress } from './progress.js';
import { type Group, makeReport, type Report } from './results.js';
import { type RoundsOutcome, runRounds } from './rounds.js';
import { measureStartUp } from './start-up.js';
import { TESTPMD_HUGEPAGES, type TestpmdMemory } from './testpmd.js';

/** What the rounds of one start may take, until turns are no longer repeated and in all. */
interface RoundsTime {
  readonly patienceMs: number;
  readonly mostMs: number;
}

const ROUNDS_TIME: RoundsTime = { patienceMs: 90_000, mostMs: 150_000 };
/** For all starts of a quick run together, which is over in two minutes. */
const QUICK_ROUNDS_TIME: RoundsTime = { patienceMs: 30_000, mostMs: 80_000 };

/** Pages of 2 MiB that one of our ends takes for packets and rings, with a margin. */
const OUR_HUGEPAGES = 24;

/** What stays the same through a run. */
interface Run {
  readonly options: BenchOptions;
  readonly pairings: readonly PairingName[];
  /** Absent where DPDK's memory is on ordinary pages. */
  readonly hugepages: HugepageReservation | undefined;
  readonly folder: string;
  readonly probe: Limit | undefined;
  readonly progress: Progress;
  readonly signal: AbortSignal;
  readonly time: RoundsTime;
  readonly skipped: Skipped[];
}

/**
 * Measures what the options say.
 *
 * Whatever happens, all processes are ended and the kernel's hugepages are as before when this settles.
 *
 * @throws VirtioError, or the signal's reason.
 */
export async function runBench(options: BenchOptions, progress: Progress, signal: AbortSignal): Promise<Report> {
  const start = performance.now();
  const cores = chooseCores();
  const { possible, skipped } = possiblePairings(options.pairings);
  const reservation = planHugepages(options, possible);
  const shortage = reservation?.ensure() ?? '';
  if (shortage !== '') skipped.push({ what: 'hugepages', why: shortage });
  const hugepages = shortage === '' ? reservation : undefined;
  const release = () => reservation?.release();
  // The last resort, when the process is forced to end.
  process.once('exit', release);
  const folder = await mkdtemp(join(tmpdir(), 'bench-'));
  const probe = await startProbe(cores, skipped);
  try {
    const versions = await readVersions();
    const starts = options.paths.length * options.sizes.length * options.starts;
    const time = options.quick ? divided(QUICK_ROUNDS_TIME, starts) : ROUNDS_TIME;
    const run = { options, pairings: possible, hugepages, folder, probe, progress, signal, time, skipped };
    const outcomes = await measureGroups(run);
    progress.phase('start-up');
    const startUp = (await measureStartUp()) ?? null;
    return makeReport({
      machine: readMachine(cores, hugepages === undefined ? '4 KiB pages' : '2 MiB hugepages'),
      versions,
      startUp,
      skipped: withoutRepetition(skipped),
      seconds: Math.round((performance.now() - start) / 1000),
      ...outcomes,
    });
  } finally {
    await probe?.close();
    await rm(folder, { recursive: true, force: true });
    process.off('exit', release);
    release();
  }
}

/** Hugepages for every process that is alive at once; undefined where none are wanted. */
function planHugepages(options: BenchOptions, pairings: readonly PairingName[]): HugepageReservation | undefined {
  const processes = pairings.map(processesOf);
  if (!options.hugepages || !processes.some(({ dpdk }) => dpdk > 0)) return undefined;
  const pages = processes.map(({ dpdk, ours }) => dpdk * TESTPMD_HUGEPAGES + ours * OUR_HUGEPAGES);
  return new HugepageReservation(pages.reduce((sum, each) => sum + each));
}

async function measureGroups(run: Run) {
  const groups: Group[] = [];
  let droppedTurns = 0;
  let abandonedRounds = 0;
  for (const path of run.options.paths) {
    for (const size of run.options.sizes) {
      const outcomes: RoundsOutcome[] = [];
      for (let start = 1; start <= run.options.starts; start++) {
        run.progress.phase(`${path.name} ${size} bytes, start ${start} of ${run.options.starts}`);
        outcomes.push(await measureStart(run, path, size));
      }
      groups.push({ path: path.name, size, rounds: outcomes.flatMap((outcome) => outcome.rounds) });
      droppedTurns += outcomes.reduce((sum, outcome) => sum + outcome.droppedTurns, 0);
      abandonedRounds += outcomes.reduce((sum, outcome) => sum + outcome.abandonedRounds, 0);
    }
  }
  return { groups, droppedTurns, abandonedRounds };
}

async function measureStart(run: Run, path: RingPath, size: number): Promise<RoundsOutcome> {
  const { hugepages, folder, signal, probe } = run;
  const memory: TestpmdMemory = hugepages === undefined ? 'no-huge' : 'hugepages';
  hugepages?.ensure();
  const contenders = await Contenders.start(run.pairings, { path, size, memory, folder, cores: chooseCores() }, signal);
  run.skipped.push(...contenders.skipped.map(({ what, why }) => ({ what: `${what} (${path.name}, ${size})`, why })));
  try {
    return await runRounds({
      contenders: contenders.all,
      ...(probe === undefined ? {} : { probe: probeWith(probe) }),
      wanted: run.options.rounds,
      patienceUntil: performance.now() + run.time.patienceMs,
      deadline: performance.now() + run.time.mostMs,
      signal,
      onTurn: (event) => run.progress.turn(event),
    });
  } finally {
    await contenders.close();
  }
}

const divided = ({ patienceMs, mostMs }: RoundsTime, by: number): RoundsTime => ({
  patienceMs: patienceMs / by,
  mostMs: mostMs / by,
});

/** Every start skips the same again. */
function withoutRepetition(skipped: readonly Skipped[]): Skipped[] {
  return [...new Map(skipped.map((one) => [`${one.what}: ${one.why}`, one])).values()];
}
