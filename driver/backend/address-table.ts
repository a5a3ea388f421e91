/** A bounded set of Ethernet addresses that is looked at for every packet. */

/** Most addresses of a table. */
export const ADDRESS_TABLE_MOST = 256;

/** Twice as many places as addresses: a look ends soon, whatever addresses a guest picks it ends after `ADDRESS_TABLE_MOST`. */
const PLACES = 2 * ADDRESS_TABLE_MOST;
/** The second word of a place without an address: those of addresses have 16 bits. */
const FREE = -1;

/** Words of the memory that a table is in. */
export const ADDRESS_TABLE_WORDS = 2 * PLACES;

/** Addresses as two words: the first four bytes and the last two, the first byte lowest. */
export class AddressTable {
  readonly #words: Int32Array;

  /** Over `ADDRESS_TABLE_WORDS` words, which other threads may have a table over as well; `clear` comes before all else. */
  constructor(words: Int32Array) {
    this.#words = words;
  }

  clear(): void {
    this.#words.fill(FREE);
  }

  /** Adds an address; the caller bounds how many. */
  add(low: number, high: number): void {
    const words = this.#words;
    let at = placeOf(low, high);
    while (words[at + 1] !== FREE) {
      if (words[at] === low && words[at + 1] === high) return;
      at = (at + 2) & (2 * PLACES - 1);
    }
    words[at] = low;
    words[at + 1] = high;
  }

  has(low: number, high: number): boolean {
    const words = this.#words;
    for (let at = placeOf(low, high); words[at + 1] !== FREE; at = (at + 2) & (2 * PLACES - 1)) {
      if (words[at] === low && words[at + 1] === high) return true;
    }
    return false;
  }
}

/** Where the search for an address begins: addresses of one maker differ in their last bytes. */
const placeOf = (low: number, high: number): number => {
  const mixed = Math.imul(low ^ Math.imul(high, 0x85eb_ca6b), 0x9e37_79b1);
  return (mixed >>> 22) & (2 * PLACES - 2);
};
