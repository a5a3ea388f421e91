/** Which of the two formats an asking side wants (RFC 9110 §12.5.1; OpenMetrics 1.0 "Protocol Negotiation"). */

const OPEN_METRICS = 'application/openmetrics-text';
/** What is printed, and what Prometheus calls the drafts of it. */
const VERSIONS = ['1.0.0', '0.0.1'];

interface MediaRange {
  readonly type: string;
  readonly parameters: ReadonlyMap<string, string>;
  /** 0 to 1: how much it is wanted; 0 is not at all. */
  readonly quality: number;
}

/** Whether an Accept header names OpenMetrics, and nothing else that is here more: whoever takes anything gets plain text. */
export function wantsOpenMetrics(accept: string): boolean {
  const ranges = accept.split(',').map(mediaRange);
  const best = (some: readonly MediaRange[]): number => some.reduce((most, { quality }) => Math.max(most, quality), 0);
  const open = best(
    ranges.filter(({ type, parameters }) => type === OPEN_METRICS && isKnown(parameters.get('version'))),
  );
  const plain = best(ranges.filter(({ type }) => ['text/plain', 'text/*', '*/*'].includes(type)));
  return open > 0 && open >= plain;
}

const isKnown = (version: string | undefined): boolean => version === undefined || VERSIONS.includes(version);

function mediaRange(text: string): MediaRange {
  const [type = '', ...rest] = text.split(';').map((part) => part.trim().toLowerCase());
  const parameters = new Map(
    rest.map((part) => {
      const [name = '', value = ''] = part.split('=').map((each) => each.trim());
      return [name, value.replace(/^"(.*)"$/, '$1')] as const;
    }),
  );
  const quality = Number(parameters.get('q') ?? 1);
  return { type, parameters, quality: quality >= 0 && quality <= 1 ? quality : 0 };
}
