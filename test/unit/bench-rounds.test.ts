/** Rounds: what is repeated, what is given up, when there is enough. */

import { suite } from 'uvu';
import * as assert from 'uvu/assert';

import type { Placement } from '../../bench/regime.js';
import { type RoundsOptions, runRounds, type TurnEvent } from '../../bench/rounds.js';
import type { Contender, Turn } from '../../bench/turn.js';

const test = suite('bench rounds');

const quiet = (rate: number): Turn => ({ rate, taken: 0.01 });
const disturbed = (rate: number, taken = 0.5): Turn => ({ rate, taken });

/** Takes the turns that it is given, and the last one for ever. */
function contender(name: string, turns: readonly Turn[], order: string[] = []): Contender {
  let number = 0;
  return {
    name,
    turn: async () => {
      order.push(name);
      return turns[Math.min(number++, turns.length - 1)]!;
    },
  };
}

const options = (contenders: readonly Contender[], more: Partial<RoundsOptions> = {}): RoundsOptions => ({
  contenders,
  wanted: 1,
  patienceUntil: Number.POSITIVE_INFINITY,
  deadline: Number.POSITIVE_INFINITY,
  signal: new AbortController().signal,
  waitMs: 0,
  ...more,
});

test('everybody takes a turn in every round', async () => {
  const order: string[] = [];
  const contenders = [contender('a', [quiet(1), quiet(2)], order), contender('b', [quiet(10), quiet(20)], order)];
  const { rounds } = await runRounds(options(contenders, { wanted: 2 }));
  assert.equal(order, ['a', 'b', 'a', 'b']);
  assert.equal(
    rounds.map((round) => round.rates),
    [
      { a: 1, b: 10 },
      { a: 2, b: 20 },
    ],
  );
});

test('a disturbed turn is dropped and repeated; only the repetition counts', async () => {
  const events: TurnEvent[] = [];
  const contenders = [contender('a', [disturbed(1), quiet(7)])];
  const outcome = await runRounds(options(contenders, { onTurn: (event) => events.push(event) }));
  assert.is(outcome.droppedTurns, 1);
  assert.equal(outcome.rounds, [{ placement: undefined, rates: { a: 7 }, disturbed: false }]);
  assert.equal(
    events.map((event) => event.counts),
    [false, true],
  );
});

test('6 % of a core is the limit', async () => {
  const { droppedTurns } = await runRounds(
    options([contender('a', [disturbed(1, 0.061), disturbed(2, 0.06), quiet(3)])]),
  );
  assert.is(droppedTurns, 1);
});

test('where every try is disturbed, the least disturbed one is kept and the round is marked', async () => {
  const turns = [disturbed(1, 0.9), disturbed(2, 0.2), disturbed(3, 0.7)];
  const { rounds } = await runRounds(options([contender('a', turns)], { wanted: 3 }));
  assert.is(rounds[0]?.disturbed, true);
  assert.is(rounds[0]?.rates['a'], 2);
});

test('a machine that is never quiet gets as many rounds, and its patience ends', async () => {
  const { rounds, droppedTurns } = await runRounds(options([contender('a', [disturbed(1)])], { wanted: 3 }));
  assert.is(droppedTurns, 3, 'one repetition for each turn that is wanted');
  assert.is(rounds.length, 3);
  assert.ok(rounds.every((round) => round.disturbed));
});

test('undisturbed rounds are looked for as long as there is patience', async () => {
  const turns = [disturbed(1), disturbed(1), disturbed(1), quiet(5)];
  const { rounds } = await runRounds(options([contender('a', turns)], { wanted: 3 }));
  assert.is(rounds.filter((round) => !round.disturbed).length, 3);
  assert.is(rounds.length, 4);
});

test('a round in which the placement changes is given up', async () => {
  const placements: Placement[] = ['near-cores', 'near-cores', 'distant-cores'];
  const probe = async () => placements.shift() ?? 'distant-cores';
  const contenders = [contender('a', [quiet(1)]), contender('b', [quiet(2)])];
  const { rounds, abandonedRounds } = await runRounds(options(contenders, { probe }));
  assert.is(abandonedRounds, 1);
  assert.equal(
    rounds.map((round) => round.placement),
    ['distant-cores'],
  );
});

test('rounds of one placement do not make up for those of another', async () => {
  // Two turns' worth of probes a round: before and after.
  const placements: Placement[] = ['near-cores', 'near-cores', 'distant-cores', 'distant-cores'];
  const probe = async () => placements.shift() ?? 'near-cores';
  const { rounds } = await runRounds(options([contender('a', [quiet(1)])], { probe, wanted: 2 }));
  assert.equal(
    rounds.map((round) => round.placement),
    ['near-cores', 'distant-cores', 'near-cores'],
  );
});

test('late turns are taken as they come', async () => {
  const turns = [disturbed(1), quiet(2)];
  const { rounds, droppedTurns } = await runRounds(options([contender('a', turns)], { patienceUntil: 0 }));
  assert.is(droppedTurns, 0);
  assert.equal(
    rounds.map((round) => round.rates['a']),
    [1],
  );
});

test('no round is begun after the deadline', async () => {
  const { rounds } = await runRounds(options([contender('a', [quiet(1)])], { deadline: performance.now() - 1 }));
  assert.equal(rounds, []);
});

test('an abort ends it between two turns', async () => {
  const abort = new AbortController();
  const onTurn = () => abort.abort(new Error('enough'));
  const contenders = [contender('a', [quiet(1)]), contender('b', [quiet(2)])];
  try {
    await runRounds(options(contenders, { signal: abort.signal, onTurn }));
    assert.unreachable();
  } catch (error) {
    assert.is((error as Error).message, 'enough');
  }
});

test.run();
