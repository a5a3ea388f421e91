/** The search for the highest rate at which nothing is lost (RFC 2544 §26.1): halving between what passes and what does not. */

export interface SearchOptions {
  /** The rate to begin with; nothing above it is tried. */
  readonly highest: number;
  /** The search ends when rates that pass and that do not are this near, as a share of `highest`. */
  readonly resolution: number;
  /** Whether a trial at this rate loses nothing. */
  readonly passes: (rate: number) => Promise<boolean>;
}

/** Resolves to the highest rate that was tried and passed; 0 where none did. */
export async function searchHighest({ highest, resolution, passes }: SearchOptions): Promise<number> {
  if (await passes(highest)) return highest;
  let passed = 0;
  let failed = highest;
  while (failed - passed > resolution * highest) {
    const rate = (passed + failed) / 2;
    if (await passes(rate)) passed = rate;
    else failed = rate;
  }
  return passed;
}
