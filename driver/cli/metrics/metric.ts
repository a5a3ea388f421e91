/** One metric of a command. */

export type Labels = Readonly<Record<string, string | number>>;

/** Its samples are taken when it is asked for. */
export interface Metric {
  /** A counter's name ends in `_total`. */
  readonly name: string;
  readonly help: string;
  readonly labels: readonly string[];
  readonly samples: () => readonly (readonly [labels: Labels, value: number])[];
}

export const snakeCase = (name: string): string => name.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`);
