/** Bits by number, masks at their use, names in print. */

/** The mask of bit `number` (0 to 31), as an unsigned 32-bit number. */
export const bit = (number: number): number => (1 << number) >>> 0;

/**
 * Names the bits set in `value`: `ACKNOWLEDGE | DRIVER | 0x20`; `0` when none is.
 *
 * @param names bit numbers by name; bits without a name come last, together in hex
 */
export function describeBits(value: number, names: Readonly<Record<string, number>>): string {
  let rest = value >>> 0;
  const parts: string[] = [];
  for (const [name, number] of Object.entries(names)) {
    if ((rest & bit(number)) !== 0) {
      parts.push(name);
      rest = (rest & ~bit(number)) >>> 0;
    }
  }
  if (rest !== 0) parts.push(`0x${rest.toString(16)}`);
  return parts.length === 0 ? '0' : parts.join(' | ');
}

/** The name of `value` in an `as const` table, or the value in hex. */
export function nameOf(value: number, table: Readonly<Record<string, number>>): string {
  return Object.entries(table).find(([, number]) => number === value)?.[0] ?? `0x${value.toString(16)}`;
}

/** The masks of a table of bit numbers, under the same names. */
export const masksOf = <const T extends Readonly<Record<string, number>>>(
  bits: T,
): { readonly [K in keyof T]: number } =>
  Object.fromEntries(Object.entries(bits).map(([name, number]) => [name, bit(number)])) as {
    readonly [K in keyof T]: number;
  };
