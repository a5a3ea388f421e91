/** Combinations of parameters, and a sample of them that has every pair of values. */

/** What is combined: the values of each parameter. */
export type Parameters = Readonly<Record<string, readonly (string | number | boolean)[]>>;
export type CombinationOf<P extends Parameters> = { readonly [Name in keyof P]: P[Name][number] };

/** Returns all combinations, always in the same order. */
export function allCombinationsOf<const P extends Parameters>(parameters: P): CombinationOf<P>[] {
  let rows: object[] = [{}];
  for (const [name, values] of Object.entries(parameters)) {
    rows = rows.flatMap((row) => values.map((value) => ({ ...row, [name]: value })));
  }
  return rows as CombinationOf<P>[];
}

/** Returns a combination's pairs of values, each as text. */
function pairsOf(combination: object): string[] {
  const values = Object.entries(combination).map(([name, value]) => `${name}=${value}`);
  return values.flatMap((first, index) => values.slice(index + 1).map((second) => `${first} ${second}`));
}

/**
 * Returns few combinations that have every pair of values of two parameters in them, always the same.
 *
 * Greedy: each next one has the most pairs that are still missing; among those, the values that were used least, so that
 * what the last pairs leave open is not always the first value.
 */
export function pairwiseSampleOf<const P extends Parameters>(parameters: P): CombinationOf<P>[] {
  const all = allCombinationsOf(parameters);
  const missing = new Set(all.flatMap(pairsOf));
  const sample: CombinationOf<P>[] = [];
  const names = Object.keys(parameters);
  const gain = (candidate: object): number => pairsOf(candidate).filter((pair) => missing.has(pair)).length;
  const uses = (candidate: CombinationOf<P>): number =>
    sample.reduce((sum, row) => sum + names.filter((name) => row[name] === candidate[name]).length, 0);
  while (missing.size > 0) {
    const most = Math.max(...all.map(gain));
    const best = all.filter((candidate) => gain(candidate) === most);
    const next = best.reduce((least, candidate) => (uses(candidate) < uses(least) ? candidate : least));
    for (const pair of pairsOf(next)) missing.delete(pair);
    sample.push(next);
  }
  return sample;
}
