/** How often bursts had each size: the line of `record-burst-stats`. */

/**
 * `1000 [70% of 0 pkts + 20% of 32 pkts + 10% of other]`: bursts of nothing and of the two sizes that were most frequent;
 * undefined without any burst.
 *
 * @param bursts how many there were of each size, by the size
 */
export function burstSpread(bursts: Float64Array): string | undefined {
  const total = bursts.reduce((all, each) => all + each, 0);
  if (total === 0) return undefined;
  const frequent = Array.from(bursts, (times, packets) => ({ times, packets }))
    .slice(1)
    .filter(({ times }) => times > 0)
    .sort((a, b) => b.times - a.times || a.packets - b.packets)
    .slice(0, 2);
  const parts: string[] = [];
  let counted = 0;
  let percent = 0;
  for (const { times, packets } of [{ times: bursts[0] ?? 0, packets: 0 }, ...frequent]) {
    counted += times;
    if (counted === total) return `${total} [${[...parts, `${100 - percent}% of ${packets} pkts`].join(' + ')}]`;
    const share = Math.floor((times / total) * 100);
    parts.push(`${share}% of ${packets} pkts`);
    percent += share;
  }
  return `${total} [${[...parts, `${100 - percent}% of other`].join(' + ')}]`;
}
