/** Waiting for what comes in its own time. */

import { setTimeout as pause } from 'node:timers/promises';
import * as assert from 'uvu/assert';

/** How long tests wait for what must come: far beyond any delay of a machine that has other things to do. */
export const PATIENCE_MS = 30_000;

/** Waits until `condition` holds, on the event loop; fails with `what` after `timeoutMs`. */
export async function until(condition: () => boolean, what: string, timeoutMs = PATIENCE_MS): Promise<void> {
  const end = performance.now() + timeoutMs;
  while (!condition()) {
    if (performance.now() > end) assert.unreachable(`waited ${timeoutMs} ms for ${what}`);
    await pause(1);
  }
}
