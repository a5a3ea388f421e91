/** Which lcores a process has, by EAL's options: `-l 0,2-3`, `-c 0xd`, `--lcores '0@0,(1,2)@(4-5)'`. */

/** The greatest number of lcores (`RTE_MAX_LCORE`). */
const MAX_LCORES = 128;

/** The cpus of each lcore. */
export type LcoreMap = ReadonlyMap<number, readonly number[]>;

const itself = (lcores: Iterable<number>): LcoreMap =>
  new Map([...lcores].sort((a, b) => a - b).map((lcore) => [lcore, [lcore]]));

/** `0,2-3`: each lcore on the cpu of its number; undefined for anything else. */
export function lcoresOfList(list: string): LcoreMap | undefined {
  const numbers = numbersOf(list);
  return numbers === undefined ? undefined : itself(numbers);
}

/** `0xd` or `d`: an lcore a bit. */
export function lcoresOfMask(mask: string): LcoreMap | undefined {
  const [, digits] = /^\s*(?:0x)?([0-9a-f]+)\s*$/i.exec(mask) ?? [];
  if (digits === undefined) return undefined;
  const bits = BigInt(`0x${digits}`);
  const lcores = Array.from({ length: MAX_LCORES }, (_, lcore) => lcore).filter(
    (lcore) => (bits >> BigInt(lcore)) & 1n,
  );
  return bits === 0n || bits >> BigInt(MAX_LCORES) !== 0n ? undefined : itself(lcores);
}

/** `0@0,(1,2)@(4-5)`: lcores and the cpus that they may run on. */
export function lcoresOfMap(map: string): LcoreMap | undefined {
  const set = String.raw`\d+(?:-\d+)?|\(\s*[\d,\s-]+\)`;
  const part = new RegExp(String.raw`\s*(${set})(?:\s*@\s*(${set}))?\s*(?:,|$)`, 'y');
  const result = new Map<number, readonly number[]>();
  while (part.lastIndex < map.length) {
    const [, lcoreSet, cpuSet] = part.exec(map) ?? [];
    const lcores = lcoreSet === undefined ? undefined : numbersOf(withoutParentheses(lcoreSet));
    if (lcoreSet === undefined || lcores === undefined) return undefined;
    const cpus = numbersOf(withoutParentheses(cpuSet ?? lcoreSet));
    if (cpus === undefined) return undefined;
    const grouped = cpuSet !== undefined || lcoreSet.startsWith('(');
    for (const lcore of lcores) result.set(lcore, grouped ? cpus : [lcore]);
  }
  return result.size === 0 ? undefined : new Map([...result].sort(([a], [b]) => a - b));
}

const withoutParentheses = (set: string): string => set.replace(/[()]/g, '');

/** `0,2-3`, each once; undefined for anything else. */
export function numbersOf(list: string): number[] | undefined {
  const numbers: number[] = [];
  for (const part of list.split(',')) {
    const [, from, to = from] = /^\s*(\d+)\s*(?:-\s*(\d+)\s*)?$/.exec(part) ?? [];
    if (from === undefined || to === undefined) return undefined;
    for (let number = Number(from); number <= Number(to); number++) {
      if (number >= MAX_LCORES) return undefined;
      if (!numbers.includes(number)) numbers.push(number);
    }
  }
  return numbers.length === 0 ? undefined : numbers;
}
