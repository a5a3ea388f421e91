/** What goes on, for a person at a terminal; nothing when output is piped. */

import { SingleBar } from 'cli-progress';

import type { TurnEvent } from './rounds.js';

/** A bar over the turns that are due, with the last figure beside it. */
export class Progress {
  readonly #bar: SingleBar | undefined;
  readonly #start = performance.now();
  #phase = '';

  constructor(terminal: NodeJS.WriteStream = process.stderr) {
    if (!terminal.isTTY) return;
    this.#bar = new SingleBar({
      format: '{bar} {value}/{total} turns, {seconds} s  {phase}  {last}',
      stream: terminal,
      hideCursor: true,
      clearOnComplete: true,
    });
    this.#bar.start(0, 0, { seconds: 0, phase: '', last: '' });
  }

  /** Tells of turns that are due when none is disturbed. */
  expect(turns: number): void {
    this.#bar?.setTotal(this.#bar.getTotal() + turns);
  }

  /** Names what the next turns belong to. */
  phase(text: string): void {
    this.#phase = text;
    this.#update('');
  }

  turn({ name, turn, counts }: TurnEvent): void {
    const rate = `${name} ${(turn.rate / 1e6).toFixed(2)} Mpps`;
    if (counts) this.#bar?.increment();
    this.#update(counts ? rate : `${rate}, disturbed: ${Math.round(turn.taken * 100)} % of a core went elsewhere`);
  }

  stop(): void {
    this.#bar?.stop();
  }

  #update(last: string): void {
    const seconds = Math.round((performance.now() - this.#start) / 1000);
    this.#bar?.update({ phase: this.#phase, last, seconds });
  }
}
