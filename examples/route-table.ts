/** Routes of IPv4, looked up by the longest prefix that an address is in. */

import { isIPv4 } from 'node:net';

/** Where packets for a prefix go. */
export interface Route {
  readonly prefix: number;
  /** Bits of the prefix, 0 to 32. */
  readonly length: number;
  /** Number of the port they leave on. */
  readonly port: number;
  /** The MAC address they are sent to, six bytes. */
  readonly nextHop: readonly number[];
}

/** Returns the route that `10.0.1.0/24=1,02:00:00:00:00:0b` says: prefix, port, next hop. @throws Error for anything else */
export function parseRoute(text: string, ports: number): Route {
  const [, address = '', bits = '', port = '', mac = ''] =
    /^(.*)\/(\d+)=(\d+),((?:[\da-f]{2}:){5}[\da-f]{2})$/i.exec(text) ?? [];
  const [length, number] = [Number(bits), Number(port)];
  if (!isIPv4(address) || length > 32 || number >= ports) {
    throw new Error(`${text} is no route: PREFIX/BITS=PORT,MAC with ports 0 to ${ports - 1}`);
  }
  const prefix = Buffer.from(address.split('.').map(Number)).readUInt32BE();
  return { prefix, length, port: number, nextHop: mac.split(':').map((byte) => Number.parseInt(byte, 16)) };
}

const BYTE = 256;

/** A tree of tables, one for each byte of an address, so that a look-up is four steps at most. */
export class RouteTable {
  /** Of each table and byte: 0, or a route's number plus one, or the negative number of the table that goes on from there. */
  readonly #entries = new Array<number>(BYTE).fill(0);

  constructor(routes: readonly Route[]) {
    // The shorter ones first: longer ones are written over them.
    const byLength = [...routes.keys()].sort((one, other) => routes[one]!.length - routes[other]!.length);
    for (const number of byLength) this.#add(routes[number]!, number + 1);
  }

  /** The number of the route for an address, or -1. */
  find(address: number): number {
    let entry = this.#entries[address >>> 24]!;
    for (let shift = 16; entry < 0; shift -= 8) entry = this.#entries[-entry * BYTE + ((address >>> shift) & 0xff)]!;
    return entry - 1;
  }

  #add({ prefix, length }: Route, value: number): void {
    let table = 0;
    let shift = 24;
    for (; length > 32 - shift; shift -= 8) {
      const at = table * BYTE + ((prefix >>> shift) & 0xff);
      const entry = this.#entries[at]!;
      if (entry >= 0) {
        // What held for all of this byte holds for each of the next one.
        this.#entries[at] = -this.#entries.length / BYTE;
        this.#entries.push(...new Array<number>(BYTE).fill(entry));
      }
      table = -this.#entries[at]!;
    }
    const covered = 2 ** (32 - shift - length);
    const first = (prefix >>> shift) & 0xff & -covered;
    this.#entries.fill(value, table * BYTE + first, table * BYTE + first + covered);
  }
}
