/** Every way in which our front-end meets `net_vhost`, and a sample of them that has every pair of values. */

/** What is combined. */
export const PARAMETERS = {
  /** What testpmd does with a packet before it sends it back. */
  mode: ['io', 'mac', 'macswap'],
  /** What `net_vhost` is on the socket: the driver connects to a server, and listens for a client. */
  peer: ['server', 'client'],
  ringSize: [128, 256, 512, 1024, 2048, 4096],
  mergeable: [true, false],
  queues: [1, 2],
} as const;

type Parameter = keyof typeof PARAMETERS;
export type Combination = { readonly [Name in Parameter]: (typeof PARAMETERS)[Name][number] };

const names = Object.keys(PARAMETERS) as Parameter[];

/** Returns all combinations, always in the same order. */
export function allCombinations(): Combination[] {
  let rows: Partial<Combination>[] = [{}];
  for (const name of names) rows = rows.flatMap((row) => PARAMETERS[name].map((value) => ({ ...row, [name]: value })));
  return rows as Combination[];
}

/** Returns a combination's pairs of values, each as text. */
function pairsOf(combination: Combination): string[] {
  const values = names.map((name) => `${name}=${combination[name]}`);
  return values.flatMap((first, index) => values.slice(index + 1).map((second) => `${first} ${second}`));
}

/**
 * Returns few combinations that have every pair of values of two parameters in them, always the same.
 *
 * Greedy: each next one has the most pairs that are still missing; among those, the values that were used least, so that
 * what the last pairs leave open is not always the first value.
 */
export function pairwiseSample(): Combination[] {
  const all = allCombinations();
  const missing = new Set(all.flatMap(pairsOf));
  const sample: Combination[] = [];
  const gain = (candidate: Combination): number => pairsOf(candidate).filter((pair) => missing.has(pair)).length;
  const uses = (candidate: Combination): number =>
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

/** Names a combination: `macswap, net_vhost as client, ring 256, mergeable off, 2 queues`. */
export function describeCombination({ mode, peer, ringSize, mergeable, queues }: Combination): string {
  const count = queues === 1 ? '1 queue' : `${queues} queues`;
  return `${mode}, net_vhost as ${peer}, ring ${ringSize}, mergeable ${mergeable ? 'on' : 'off'}, ${count}`;
}
