/** The terminal as a whole: a page of its own that is drawn over and over, and keys as they are pressed. */

import { emitKeypressEvents, type Key } from 'node:readline';
import type { Line, LineStyle } from './render.js';

/** Control sequences (ECMA-48, and xterm's for the alternate page). */
const ENTER = '\x1b[?1049h\x1b[?25l';
const LEAVE = '\x1b[?25h\x1b[?1049l';
const HOME = '\x1b[H';
const CLEAR_REST_OF_LINE = '\x1b[K';
const CLEAR_BELOW = '\x1b[J';
const PLAIN = '\x1b[0m';
const STYLES: Readonly<Record<LineStyle, string>> = {
  title: '\x1b[1m',
  header: '\x1b[7m',
  alarm: '\x1b[31m',
  hint: '\x1b[2m',
};

const FALLBACK = { columns: 80, rows: 24 };

export interface ScreenEvents {
  /** `q`, `up`, `space`, `return`; Ctrl-C is `q` too. */
  readonly key: (key: string) => void;
  /** The terminal has another size, or shows us again: draw. */
  readonly redraw: () => void;
}

/** Whether there is a terminal to draw on. */
export const hasScreen = (): boolean => process.stdout.isTTY === true && process.env['TERM'] !== 'dumb';

export class Screen {
  readonly #events: ScreenEvents;
  readonly #hasColor = process.env['NO_COLOR'] === undefined || process.env['NO_COLOR'] === '';
  readonly #onKey = (text: string | undefined, key: Key): void => this.#take(text, key);
  readonly #onContinue = (): void => this.#show();
  /** However the process ends: the terminal goes back to what it was. */
  readonly #onExit = (): void => this.close();
  #isOpen = true;

  constructor(events: ScreenEvents) {
    this.#events = events;
    emitKeypressEvents(process.stdin);
    process.stdin.on('keypress', this.#onKey);
    process.stdout.on('resize', events.redraw);
    process.on('SIGCONT', this.#onContinue);
    process.on('exit', this.#onExit);
    this.#enter();
  }

  get size(): { readonly columns: number; readonly rows: number } {
    const { columns, rows } = process.stdout;
    // A terminal that does not know says 0.
    return columns > 0 && rows > 0 ? { columns, rows } : FALLBACK;
  }

  /** Shows the lines in place of what is there. A terminal that lags behind is left out this time. */
  draw(lines: readonly Line[]): void {
    if (!this.#isOpen || process.stdout.writableNeedDrain) return;
    const { columns } = this.size;
    const drawn = lines.map(({ text, style }) => {
      if (style === undefined || (style === 'alarm' && !this.#hasColor)) return text + CLEAR_REST_OF_LINE;
      return STYLES[style] + (style === 'header' ? text.padEnd(columns) : text) + PLAIN + CLEAR_REST_OF_LINE;
    });
    process.stdout.write(HOME + drawn.join('\r\n') + CLEAR_BELOW);
  }

  /** Idempotent. */
  close(): void {
    if (!this.#isOpen) return;
    this.#isOpen = false;
    this.#leave();
    process.stdin.off('keypress', this.#onKey);
    process.stdin.pause();
    process.stdout.off('resize', this.#events.redraw);
    process.off('SIGCONT', this.#onContinue);
    process.off('exit', this.#onExit);
  }

  #take(text: string | undefined, key: Key): void {
    if (key.ctrl === true) this.#takeControl(key.name);
    else if (key.meta !== true) this.#events.key(key.name ?? text ?? '');
  }

  /** In raw mode these keys are ours to understand. */
  #takeControl(name: string | undefined): void {
    if (name === 'c') this.#events.key('q');
    else if (name === 'l') this.#events.redraw();
    else if (name === 'z') this.#suspend();
  }

  /** As the shell has it: the terminal is the shell's until it lets us go on. */
  #suspend(): void {
    this.#leave();
    process.kill(process.pid, 'SIGSTOP');
  }

  #show(): void {
    this.#enter();
    this.#events.redraw();
  }

  #enter(): void {
    if (process.stdin.isTTY) {
      process.stdin.setRawMode(true);
      process.stdin.resume();
    }
    process.stdout.write(ENTER);
  }

  #leave(): void {
    if (process.stdin.isTTY) process.stdin.setRawMode(false);
    process.stdout.write(LEAVE);
  }
}
