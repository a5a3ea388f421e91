/** Latencies as a histogram: recorded in nanoseconds with three digits, told in microseconds. */

import {
  build,
  decodeFromCompressedBase64,
  encodeIntoCompressedBase64,
  type Histogram,
  type JsHistogram,
} from 'hdr-histogram-js';

/** What is said of latencies, in microseconds. */
export interface LatencySummary {
  readonly packets: number;
  readonly p50: number;
  readonly p99: number;
  readonly p999: number;
  readonly p9999: number;
  readonly max: number;
}

/** So many packets took up to so long. */
export interface LatencyBucket {
  /** Microseconds: the bucket ends here, and the one before where it begins. */
  readonly upTo: number;
  readonly packets: number;
}

const DIGITS = 3;
/** Buckets for each doubling. */
const BUCKETS_PER_DOUBLING = 2;
/** Latencies are 32 bits of nanoseconds. */
const NANOSECONDS_MAX = 2 ** 32;
const NANOSECONDS_PER_MICROSECOND = 1000;

const empty = (): Histogram =>
  build({
    lowestDiscernibleValue: 1,
    highestTrackableValue: NANOSECONDS_MAX,
    numberOfSignificantValueDigits: DIGITS,
    bitBucketSize: 32,
    useWebAssembly: false,
  });

/** A histogram of these latencies, in nanoseconds. */
export function histogramOf(nanoseconds: Iterable<number>): Histogram {
  const histogram = empty();
  for (const value of nanoseconds) histogram.recordValue(value);
  return histogram;
}

/** The histogram as text, for another process. */
export const encodeHistogram = (histogram: Histogram): string => encodeIntoCompressedBase64(histogram);

export const decodeHistogram = (text: string): Histogram => decodeFromCompressedBase64(text, 32, false);

/** All of them in one. */
export function sumOf(histograms: readonly Histogram[]): Histogram {
  const sum = empty();
  for (const histogram of histograms) sum.add(histogram as JsHistogram);
  return sum;
}

/** So many percent took up to so many nanoseconds: of its place in the histogram the end, but no more than the longest. */
export const percentileOf = (histogram: Histogram, percent: number): number =>
  Math.min(histogram.getValueAtPercentile(percent), histogram.maxValue);

const microseconds = (nanoseconds: number): number =>
  Number((nanoseconds / NANOSECONDS_PER_MICROSECOND).toPrecision(DIGITS));

export function summaryOf(histogram: Histogram): LatencySummary {
  const at = (percent: number) => microseconds(percentileOf(histogram, percent));
  return {
    packets: histogram.totalCount,
    p50: at(50),
    p99: at(99),
    p999: at(99.9),
    p9999: at(99.99),
    max: microseconds(histogram.maxValue),
  };
}

/** The histogram in buckets that grow with the latency, from the first to the last that has packets. */
export function bucketsOf(histogram: Histogram): LatencyBucket[] {
  const counts = new Map<number, number>();
  const { recordedValuesIterator: values } = histogram as JsHistogram;
  values.reset();
  while (values.hasNext()) {
    const { valueIteratedTo, countAddedInThisIterationStep } = values.next();
    const bucket = Math.max(0, Math.ceil(Math.log2(valueIteratedTo) * BUCKETS_PER_DOUBLING));
    counts.set(bucket, (counts.get(bucket) ?? 0) + countAddedInThisIterationStep);
  }
  const numbers = [...counts.keys()];
  const first = Math.min(...numbers);
  return Array.from({ length: counts.size === 0 ? 0 : Math.max(...numbers) - first + 1 }, (_, index) => ({
    upTo: microseconds(2 ** ((first + index) / BUCKETS_PER_DOUBLING)),
    packets: counts.get(first + index) ?? 0,
  }));
}
