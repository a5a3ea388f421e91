/** What a run's findings come to: the error it ends with, or none. */

import { ErrorCode, VirtioError } from '../../errors.js';
import { count, plural } from '../output.js';
import type { TrafficTotals } from './counters.js';
import type { Difference } from './queue-traffic.js';
import type { TrafficFindings } from './worker.js';

/** The error of a run; `failure` is what ended it early, `isBackend` whether the other end is a back-end, and no device. */
export function verdict(
  failure: VirtioError | undefined,
  findings: TrafficFindings,
  totals: TrafficTotals,
  isBackend: boolean,
): VirtioError | undefined {
  if (failure?.code === ErrorCode.PEER_GONE) {
    const gone = plural(totals.UNDER_WAY + totals.LOST_WITH_BACKEND, 'packet was', 'packets were');
    return new VirtioError(ErrorCode.PEER_GONE, `${failure.message}; ${gone} under way`, {
      cause: failure,
      // A back-end can be waited for, which only this command knows.
      advice: isBackend
        ? 'start it again; --reconnect waits for it'
        : (failure.advice ?? 'look whether the device is still there'),
    });
  }
  if (findings.broken !== undefined) {
    return new VirtioError(ErrorCode.RING_BROKEN, `a ring stands still: ${findings.broken}`, {
      value: findings.broken,
      advice: 'the other side broke the rules of the ring: look at its log',
    });
  }
  const lost = totals.LOST - totals.LOST_WITH_BACKEND;
  if (lost > 0 || totals.REORDERED > 0 || totals.CORRUPT > 0) {
    const found = `${count(totals.CORRUPT)} corrupt, ${count(lost)} lost, ${count(totals.REORDERED)} reordered`;
    const first = findings.difference === undefined ? '' : `; first: ${describe(findings.difference)}`;
    return new VirtioError(
      ErrorCode.VERIFICATION_FAILED,
      `of ${plural(totals.RECEIVED, 'packet')} back: ${found}${first}`,
      {
        value: findings.difference,
        advice: 'look at what is between the two ends; --pcap-out stores what comes back',
      },
    );
  }
  return failure;
}

/** Where it was, what should have been, and what was. */
function describe({ kind, queue, sequence, position, expected, got }: Difference): string {
  const where = `queue ${queue}, packet ${count(sequence)}`;
  switch (kind) {
    case 'corrupt':
      return `${where}, byte ${position}: expected ${hex(expected)}, got ${hex(got)}`;
    case 'length':
      return `${where}: expected ${count(expected)} bytes, got ${count(got)}`;
    case 'lost':
      return `${where} did not come back before later ones`;
    case 'reordered':
      return `${where} came back when ${count(expected)} was due`;
  }
}

const hex = (byte: number): string => `0x${byte.toString(16).padStart(2, '0')}`;
