/** The view on a terminal, until somebody quits or the process ends. */

import { ErrorCode, VirtioError } from '../../errors.js';
import { glyphsFor } from './figures.js';
import { Rates, type Sample } from './rates.js';
import { type History, render } from './render.js';
import { Screen } from './screen.js';
import type { SnapshotSource } from './source.js';
import { afterKey, rowsOf, type ViewState } from './view-state.js';

/** Values of the curves: more than any terminal has columns for. */
const HISTORY_MOST = 240;
/** Until the first rates: nobody waits a whole interval for something to see. */
const FIRST_MS = 250;

/** How a view ended. */
export type ViewEnd = 'quit' | 'gone';

/** Shows the process; resolves to how it ended. Closes the source. @throws VirtioError where it answers no more */
export function liveView(source: SnapshotSource, state: ViewState, signal: AbortSignal): Promise<ViewEnd> {
  return new LiveView(source, state, signal).ended;
}

class LiveView {
  readonly ended: Promise<ViewEnd>;
  readonly #source: SnapshotSource;
  readonly #screen: Screen;
  readonly #rates = new Rates();
  readonly #glyphs = glyphsFor(process.env);
  readonly #history: { readonly in: number[]; readonly out: number[] } = { in: [], out: [] };
  #state: ViewState;
  #sample: Sample | undefined;
  #timer: NodeJS.Timeout | undefined;
  #isOver = false;
  #end!: (end: ViewEnd | Error) => void;

  constructor(source: SnapshotSource, state: ViewState, signal: AbortSignal) {
    this.#source = source;
    this.#state = state;
    const onAbort = (): void => this.#end('quit');
    this.ended = new Promise<ViewEnd>((resolve, reject) => {
      this.#end = (end) => {
        this.#isOver = true;
        clearTimeout(this.#timer);
        signal.removeEventListener('abort', onAbort);
        this.#screen.close();
        source.close();
        if (end instanceof Error) reject(end);
        else resolve(end);
      };
    });
    this.#screen = new Screen({ key: (key) => this.#take(key), redraw: () => this.#draw() });
    signal.addEventListener('abort', onAbort);
    void source.over.then(() => this.#end('gone'));
    if (signal.aborted) onAbort();
    else void this.#look(FIRST_MS);
  }

  async #look(nextMs?: number): Promise<void> {
    this.#timer = undefined;
    try {
      if (!this.#state.isPaused) this.#show(this.#rates.sample(await this.#source.take()));
      if (!this.#isOver) this.#wait(nextMs ?? this.#state.intervalMs);
    } catch (error) {
      const isGone = error instanceof VirtioError && error.code === ErrorCode.PEER_GONE;
      this.#end(isGone ? 'gone' : (error as Error));
    }
  }

  #show(sample: Sample): void {
    this.#sample = sample;
    if (sample.seconds > 0) {
      for (const way of ['in', 'out'] as const satisfies readonly (keyof History)[]) {
        this.#history[way].push(sample[way].packetsPerSecond);
        if (this.#history[way].length > HISTORY_MOST) this.#history[way].shift();
      }
    }
    this.#draw();
  }

  #take(key: string): void {
    if (key === 'q') {
      this.#end('quit');
      return;
    }
    const state = afterKey(this.#state, key);
    if (state === undefined) return;
    const isPaceNew = state.intervalMs !== this.#state.intervalMs;
    const last = this.#sample === undefined ? 0 : rowsOf(this.#sample, state).length - 1;
    this.#state = { ...state, scroll: Math.max(Math.min(state.scroll, last), 0) };
    this.#draw();
    // While a snapshot is on its way there is no timer, and the next one has the new pace anyway.
    if (isPaceNew && this.#timer !== undefined) this.#wait(state.intervalMs);
  }

  #wait(milliseconds: number): void {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => void this.#look(), milliseconds);
  }

  #draw(): void {
    if (this.#sample === undefined) return;
    const frame = { ...this.#screen.size, glyphs: this.#glyphs };
    this.#screen.draw(render(this.#sample, this.#state, frame, this.#history));
  }
}
