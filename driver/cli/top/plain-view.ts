/** The view where there is no terminal: text, or JSON, one piece after the other. */

import { setTimeout as sleep } from 'node:timers/promises';
import { ErrorCode, VirtioError } from '../../errors.js';
import { print } from '../output.js';
import { glyphsFor } from './figures.js';
import type { ViewEnd } from './live-view.js';
import { Rates, type Sample } from './rates.js';
import { render } from './render.js';
import type { SnapshotSource } from './source.js';
import type { ViewState } from './view-state.js';

/** What a pipe takes where nobody says how wide it is. */
const COLUMNS = 100;

export interface PlainOptions {
  readonly once: boolean;
  readonly json: boolean;
}

/**
 * Prints a sample each interval until the process ends, or one; resolves to how it ended. Closes the source.
 *
 * @throws VirtioError where the process answers no more; PEER_GONE where it ended before anything was to be printed
 */
export async function plainView(
  source: SnapshotSource,
  state: ViewState,
  { once, json }: PlainOptions,
  signal: AbortSignal,
): Promise<ViewEnd> {
  const rates = new Rates();
  let printed = 0;
  try {
    rates.sample(await source.take());
    while (await passed(state.intervalMs, source, signal)) {
      const sample = rates.sample(await source.take());
      await print(json ? `${JSON.stringify(sample)}\n` : plainText(sample, state, printed > 0));
      printed++;
      if (once) return 'quit';
    }
  } catch (error) {
    const isGone = error instanceof VirtioError && error.code === ErrorCode.PEER_GONE;
    if (!isGone || printed === 0) throw error;
    return 'gone';
  } finally {
    source.close();
  }
  if (signal.aborted) return 'quit';
  if (printed > 0) return 'gone';
  throw new VirtioError(ErrorCode.PEER_GONE, 'the process has ended before there were rates of it', {
    advice: 'use a shorter --interval',
  });
}

/** Waits; whether there is more to come then. */
async function passed(milliseconds: number, source: SnapshotSource, signal: AbortSignal): Promise<boolean> {
  const timer = new AbortController();
  const stop = AbortSignal.any([signal, timer.signal]);
  try {
    const isTime = sleep(milliseconds, true, { signal: stop }).catch(() => false);
    return await Promise.race([isTime, source.over.then(() => false)]);
  } finally {
    timer.abort();
  }
}

function plainText(sample: Sample, state: ViewState, isMore: boolean): string {
  const columns = process.stdout.columns || Number(process.env['COLUMNS']) || COLUMNS;
  const frame = { columns, rows: Number.POSITIVE_INFINITY, glyphs: glyphsFor(process.env) };
  const lines = render(sample, state, frame).map(({ text }) => `${text}\n`);
  return `${isMore ? '\n' : ''}${lines.join('')}`;
}
