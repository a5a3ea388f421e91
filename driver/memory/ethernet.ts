/** Quick changes to the Ethernet headers of a burst, as testpmd's forward modes make them. */

import type { Burst } from './burst.js';

/** Exchanges source and destination address of every packet from `start` on (testpmd `macswap`). */
export function swapMacs(burst: Burst, start = 0): void {
  burst.pool.ethernet.swap(burst.handles, start, burst.count);
}

/** Writes source and destination address, six bytes each, of every packet from `start` on (testpmd `mac`). */
export function macForward(burst: Burst, source: ArrayLike<number>, destination: ArrayLike<number>, start = 0): void {
  const first = littleEndian(destination[0]!, destination[1]!, destination[2]!, destination[3]!);
  const second = littleEndian(destination[4]!, destination[5]!, source[0]!, source[1]!);
  const third = littleEndian(source[2]!, source[3]!, source[4]!, source[5]!);
  burst.pool.ethernet.write(burst.handles, start, burst.count, first, second, third);
}

const littleEndian = (a: number, b: number, c: number, d: number): number => a | (b << 8) | (c << 16) | (d << 24);
