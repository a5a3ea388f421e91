/** How testpmd ends by itself. */

import { Refusal, refusalLines } from './options/refusal.js';
import { processOutput } from './output.js';

/** Says why it ends, as testpmd does; what is no refusal goes on. @returns the exit status */
export function refuse(error: unknown): number {
  if (!(error instanceof Refusal)) throw error;
  processOutput.warn(refusalLines(error.message));
  return 1;
}
