/** `show port P features`, `show port P ring Q` and `explain path`: what testpmd does not tell of a port. */

/** A feature bit, whether it was negotiated and why. */
export interface FeatureLine {
  readonly bit: number;
  readonly name: string;
  readonly text: string;
}

/** A line a bit, in the order of the bits. */
export function features(port: number, lines: readonly FeatureLine[]): string {
  const sorted = [...lines].sort((a, b) => a.bit - b.bit);
  const width = Math.max(0, ...sorted.map(({ name }) => name.length));
  const rows = sorted.map(({ bit, name, text }) => `  ${String(bit).padStart(2)} ${name.padEnd(width)}  ${text}\n`);
  return `Features of port ${port}:\n${rows.join('')}`;
}

/** A line a value. */
export function ring(title: string, values: Readonly<Record<string, string | number>>): string {
  const entries = Object.entries(values);
  const width = Math.max(0, ...entries.map(([name]) => name.length));
  return `${title}:\n${entries.map(([name, value]) => `  ${name.padEnd(width)}  ${value}\n`).join('')}`;
}

/** The way through the driver that packets of a port take, and what decided it. */
export const path = (port: number, name: string, lines: readonly string[]): string =>
  `Path of port ${port} (${name}):\n${lines.map((line) => `  ${line}\n`).join('')}`;
