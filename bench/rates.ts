/** The matrix: every scenario with every pairing, in several starts. */

import { Contenders, possiblePairings } from './contenders.js';
import type { PairingName } from './pairing.js';
import { type Group, type Rates, ratesOf } from './results.js';
import { type RoundsOutcome, runRounds } from './rounds.js';
import { matrixOf, type Scenario } from './scenario.js';
import type { Session } from './session.js';

/** What the rounds of one start may take, until turns are no longer repeated and in all. */
interface RoundsTime {
  readonly patienceMs: number;
  readonly mostMs: number;
}

const ROUNDS_TIME: RoundsTime = { patienceMs: 90_000, mostMs: 150_000 };
/** For all starts of a quick run together, which is over in two minutes. */
const QUICK_ROUNDS_TIME: RoundsTime = { patienceMs: 30_000, mostMs: 64_000 };

export async function measureRates(session: Session): Promise<Rates> {
  const { options } = session;
  const { possible, skipped } = possiblePairings(options.pairings);
  session.skipped.push(...skipped);
  const scenarios = matrixOf(options);
  session.progress.expect(scenarios.length * options.starts * options.rounds * (possible.length + 1));
  const groups: Group[] = [];
  const outcomes: RoundsOutcome[] = [];
  for (const scenario of scenarios) {
    const { path, size, queues } = scenario;
    const name = `${path.name} ${size} bytes, ${queues} queue${queues === 1 ? '' : 's'}`;
    const measured = await measureScenario(session, possible, scenario, name, scenarios.length);
    groups.push({ path: path.name, size, queues, rounds: measured.flatMap((outcome) => outcome.rounds) });
    outcomes.push(...measured);
  }
  return ratesOf(groups, outcomes);
}

/**
 * Rounds of one scenario, over the starts that were asked for.
 *
 * @param scenarios that share the time of a quick run
 */
export async function measureScenario(
  session: Session,
  pairings: readonly PairingName[],
  scenario: Scenario,
  name: string,
  scenarios: number,
): Promise<RoundsOutcome[]> {
  const { starts, quick } = session.options;
  const time = quick ? divided(QUICK_ROUNDS_TIME, starts * scenarios) : ROUNDS_TIME;
  const outcomes: RoundsOutcome[] = [];
  for (let start = 1; start <= starts; start++) {
    session.progress.phase(`${name}, start ${start} of ${starts}`);
    outcomes.push(await measureStart(session, pairings, scenario, name, time));
  }
  return outcomes;
}

async function measureStart(
  session: Session,
  pairings: readonly PairingName[],
  scenario: Scenario,
  name: string,
  time: RoundsTime,
): Promise<RoundsOutcome> {
  const { folder, cores, signal, probe, options, progress } = session;
  const contenders = await Contenders.start(pairings, { ...scenario, memory: session.memory(), folder, cores }, signal);
  session.skipped.push(...contenders.skipped.map(({ what, why }) => ({ what: `${what} (${name})`, why })));
  try {
    return await runRounds({
      contenders: contenders.all,
      ...(probe === undefined ? {} : { probe }),
      wanted: options.rounds,
      patienceUntil: performance.now() + time.patienceMs,
      deadline: performance.now() + time.mostMs,
      signal,
      onTurn: (event) => progress.turn(event),
    });
  } finally {
    await contenders.close();
  }
}

const divided = ({ patienceMs, mostMs }: RoundsTime, by: number): RoundsTime => ({
  patienceMs: patienceMs / by,
  mostMs: mostMs / by,
});
