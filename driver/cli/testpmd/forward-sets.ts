/** Which ports and lcores forward: the lists, masks and numbers of options and commands, with testpmd's complaints. */

import type { Output } from './output.js';
import type { Testpmd } from './testpmd.js';

/**
 * Numbers with commas in between, as testpmd reads them: digits only, and the last may be empty, which is 0.
 *
 * @param item what the complaint calls one of them
 * @returns nothing, with a complaint, for anything else
 */
export function numberList(
  output: Output,
  text: string,
  item: string,
  max: number,
  isUnique = false,
): number[] | undefined {
  const complain = (line: string): undefined => output.warn(line) as undefined;
  const odd = /[^\d,]/.exec(text)?.[0];
  const parts = text.split(',');
  const isEarlier = odd !== undefined && text.indexOf(odd) < emptyPartAt(parts);
  if (isEarlier) return complain(`character ${odd} is not a decimal digit`);
  if (emptyPartAt(parts) < Number.POSITIVE_INFINITY) return complain('No valid value before comma');
  if (parts.length > max) return complain(`Number of ${item} = ${parts.length} > ${max} (maximum items)`);
  const values = parts.map((part) => Number(part) >>> 0);
  for (const [at, value] of values.entries()) {
    const again = values.indexOf(value, at + 1);
    if (isUnique && again >= 0) return complain(`duplicated ${item} ${value} at index ${at} and ${again}`);
  }
  return values;
}

/** Where a list has nothing in front of a comma. */
function emptyPartAt(parts: readonly string[]): number {
  let at = 0;
  for (const part of parts.slice(0, -1)) {
    if (part === '') return at;
    at += part.length + 1;
  }
  return Number.POSITIVE_INFINITY;
}

/** `0,2-3`, each number once; undefined for anything else. */
export function portListOf(text: string, limit: number): number[] | undefined {
  const ports: number[] = [];
  for (const part of text.split(',')) {
    const [, from, to = from] = /^\s*(\d+)\s*(?:-\s*(\d+)\s*)?$/.exec(part) ?? [];
    if (from === undefined || to === undefined || Number(from) >= limit || Number(to) >= limit) return undefined;
    for (let port = Number(from); port <= Number(to); port++) if (!ports.includes(port)) ports.push(port);
  }
  return ports;
}

/** The numbers of the bits that are set. */
export const bitsOf = (mask: bigint): number[] =>
  Array.from({ length: 64 }, (_, bit) => bit).filter((bit) => ((mask >> BigInt(bit)) & 1n) === 1n);

/** Has these ports forward, in this order, where all of them exist. */
export function setForwardPorts(testpmd: Testpmd, ports: readonly number[]): void {
  if (ports.some((port) => testpmd.portOf(port) === undefined)) return;
  const before = testpmd.forwardPorts.length;
  if (before !== ports.length) {
    testpmd.output.say(
      `previous number of forwarding ports ${before} - changed to number of configured ports ${ports.length}`,
    );
  }
  testpmd.configuredPorts = [...ports];
  testpmd.forwardPortCount = ports.length;
}

/** As a mask: the ports that there are. */
export function setForwardPortMask(testpmd: Testpmd, mask: bigint): void {
  if (mask === 0n) {
    testpmd.output.warn('Invalid NULL mask of ports');
    return;
  }
  setForwardPorts(
    testpmd,
    bitsOf(mask).filter((port) => testpmd.ports.has(port)),
  );
}

export function setForwardPortCount(testpmd: Testpmd, count: number): void {
  const limit = testpmd.configuredPorts.length;
  if (count > limit) {
    testpmd.output.warn(`nb fwd ports ${count} > ${limit} (number of configured ports) - ignored`);
    return;
  }
  testpmd.forwardPortCount = count;
  testpmd.output.say(`Number of forwarding ports set to ${count}`);
}

/** Has these lcores forward, in this order; tells whether it did. */
export function setForwardLcores(testpmd: Testpmd, lcores: readonly number[]): boolean {
  const { output, lcores: existing } = testpmd;
  for (const lcore of lcores) {
    if (lcore === existing.main) {
      output.warn(
        `lcore ${lcore} cannot be masked on for running packet forwarding, which is the main lcore and reserved for command line parsing only`,
      );
      return false;
    }
    if (!existing.workers.includes(lcore)) {
      output.warn(`lcore ${lcore} not enabled`);
      return false;
    }
  }
  const before = testpmd.forwardLcoreCount;
  if (before !== lcores.length) {
    output.say(
      `previous number of forwarding cores ${before} - changed to number of configured cores ${lcores.length}`,
    );
  }
  testpmd.configuredLcores = [...lcores];
  testpmd.forwardLcoreCount = lcores.length;
  return true;
}

export function setForwardLcoreMask(testpmd: Testpmd, mask: bigint): boolean {
  if (mask !== 0n) return setForwardLcores(testpmd, bitsOf(mask));
  testpmd.output.warn('Invalid NULL mask of cores');
  return false;
}

export function setForwardLcoreCount(testpmd: Testpmd, count: number): void {
  const { output, configuredLcores } = testpmd;
  if (testpmd.forwarding.isRunning) {
    output.warn('Please stop forwarding first');
    return;
  }
  if (count > configuredLcores.length) {
    output.warn(`nb fwd cores ${count} > ${configuredLcores.length} (max. number of configured lcores) - ignored`);
    return;
  }
  testpmd.forwardLcoreCount = count;
  output.say(`Number of forwarding cores set to ${count}`);
}
