/** How a reporting command answers: with testpmd's report, or with `--json` by a record on a line of its own. */

import type { Testpmd } from '../testpmd.js';

/**
 * Writes the report, or the record in its place.
 *
 * @param report what the record is: `port-statistics`
 */
export function answer(testpmd: Testpmd, report: string, record: object, text: () => string): void {
  const { output, settings } = testpmd;
  if (settings.json) output.record(JSON.stringify({ report, ...record }, asJson));
  else output.write(text());
}

/** Addresses as they are written elsewhere, bits in hexadecimal. */
function asJson(_key: string, value: unknown): unknown {
  if (typeof value === 'bigint') return `0x${value.toString(16)}`;
  if (value instanceof Uint8Array) return Array.from(value, (octet) => octet.toString(16).padStart(2, '0')).join(':');
  return value;
}
