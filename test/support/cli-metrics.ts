/** Reads metrics as Prometheus does (text format 0.0.4), and finds what it would refuse. */

export interface MetricFamily {
  readonly help: string;
  readonly type: string;
  /** Values by labels, as they stand between the braces. */
  readonly samples: ReadonlyMap<string, number>;
}

const NAME = '[a-zA-Z_:][a-zA-Z0-9_:]*';
const LABEL = '[a-zA-Z_][a-zA-Z0-9_]*="(?:[^"\\\\\\n]|\\\\["\\\\n])*"';
const SAMPLE = new RegExp(`^(${NAME})(?:\\{((?:${LABEL})(?:,${LABEL})*)\\})? (-?[0-9.e+-]+|NaN|[+-]Inf)$`);

/** Families by name. @throws Error on a line that is none, a sample before its type, or the same sample twice */
export function parseMetrics(text: string): Map<string, MetricFamily> {
  if (!text.endsWith('\n')) throw new Error('the last line does not end');
  const families = new Map<string, { help: string; type: string; samples: Map<string, number> }>();
  for (const line of text.split('\n').filter(Boolean)) {
    const help = new RegExp(`^# HELP (${NAME}) (.*)$`).exec(line);
    const type = new RegExp(`^# TYPE (${NAME}) (counter|gauge)$`).exec(line);
    if (help !== null) {
      if (families.has(help[1]!)) throw new Error(`${help[1]} is there twice`);
      families.set(help[1]!, { help: help[2]!, type: '', samples: new Map() });
    } else if (type !== null) {
      const family = families.get(type[1]!);
      if (family === undefined) throw new Error(`a type without help: ${line}`);
      family.type = type[2]!;
    } else {
      const sample = SAMPLE.exec(line);
      if (sample === null) throw new Error(`no line of metrics: ${line}`);
      const family = families.get(sample[1]!);
      if (family === undefined || family.type === '') throw new Error(`a sample before its type: ${line}`);
      const labels = sample[2] ?? '';
      if (family.samples.has(labels)) throw new Error(`twice: ${line}`);
      family.samples.set(labels, Number(sample[3]));
    }
  }
  return families;
}
