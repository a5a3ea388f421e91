/** What a recorder has against an end of a device: by the numbers that the tests of the specification have. */

/** D1 to D42 are what a driver must do, E1 to E20 what a device must. */
export type Rule = `${'D' | 'E'}${number}`;

export interface Violation {
  readonly rule: Rule;
  readonly what: string;
}

/** So many are kept: one that comes with every packet is enough once. */
const KEPT = 20;

export class Violations {
  readonly found: Violation[] = [];

  add(rule: Rule, what: string): void {
    if (this.found.length < KEPT) this.found.push({ rule, what });
  }

  /** Adds where a claim does not hold; returns the claim. */
  insist(rule: Rule, holds: boolean, what: string): boolean {
    if (!holds) this.add(rule, what);
    return holds;
  }

  /** One line each. */
  get lines(): string[] {
    return this.found.map(({ rule, what }) => `spec-${rule}: ${what}`);
  }

  /** Rules that were broken, each once. */
  get rules(): Rule[] {
    return [...new Set(this.found.map(({ rule }) => rule))];
  }
}
