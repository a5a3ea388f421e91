/** Shows a source as its user wants it: on the terminal, or as text. */

import { liveView, type ViewEnd } from './live-view.js';
import type { TopOptions } from './options.js';
import { plainView } from './plain-view.js';
import { hasScreen } from './screen.js';
import type { SnapshotSource } from './source.js';
import { viewState } from './view-state.js';

/** Whether these options have the terminal as a whole. */
export const takesTerminal = ({ once, json }: TopOptions): boolean => hasScreen() && once !== true && json !== true;

/** Resolves to how it ended. Closes the source. @throws VirtioError */
export function show(source: SnapshotSource, options: TopOptions, signal: AbortSignal): Promise<ViewEnd> {
  const state = viewState(options.interval, options.sort);
  if (takesTerminal(options)) return liveView(source, state, signal);
  return plainView(source, state, { once: options.once === true, json: options.json === true }, signal);
}
