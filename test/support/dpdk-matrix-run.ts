/** Runs one combination: brings a port up at a testpmd, has its packets verified, and compares what both ends counted. */

import { setTimeout as pause } from 'node:timers/promises';
import * as assert from 'uvu/assert';

import { TrafficCounter, TrafficCounters, type TrafficTotals } from '../../driver/cli/loopback/counters.js';
import { lengthsOf } from '../../driver/cli/loopback/pattern.js';
import { launch } from '../../driver/net/launch.js';
import type { Port } from '../../driver/net/port.js';
import { openPort } from '../../driver/open.js';
import { Feature } from '../../driver/spec/features.js';
import type { Combination } from './dpdk-matrix.js';
import type { MatrixPeer, PeerCounters } from './dpdk-matrix-peer.js';
import type { MatrixFindings, MatrixOrder } from './dpdk-matrix-worker.js';

/** Nothing back for so long is the end: a starved machine comes back sooner. */
const STALL_MS = 10_000;
/** For every answer, and for `net_vhost` as client, which looks for its server once a second. */
const ANSWER_MS = 10_000;
/** Takes three buffers to come back in. */
const MERGED_BYTES = 5000;

/** What packets are sent with: destination and source. */
const SENT_ADDRESSES = Uint8Array.of(2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1);
/** Where testpmd sends packets in its mode `mac`, unless it is told otherwise; the port's number follows. */
const PEER_ADDRESS = [2, 0, 0, 0, 0] as const;

/** Returns the addresses that packets come back with. */
export function addressesAfter(
  mode: Combination['mode'],
  peer: { readonly macAddress: Uint8Array; readonly port?: number },
): Uint8Array {
  switch (mode) {
    case 'io':
      return SENT_ADDRESSES;
    case 'mac':
      return Uint8Array.of(...PEER_ADDRESS, peer.port ?? 0, ...peer.macAddress);
    case 'macswap':
      return Uint8Array.of(...SENT_ADDRESSES.subarray(6), ...SENT_ADDRESSES.subarray(0, 6));
  }
}

/** A combination, or one with a packed ring of another size. */
type AnySize = Omit<Combination, 'ringSize'> & { readonly ringSize: number };

export interface CombinationRun {
  readonly combination: AnySize;
  /** Over all queues, a multiple of their number. */
  readonly packets: number;
  /** What is to come back in front of each packet; what the mode makes of it when not given. */
  readonly addresses?: Uint8Array;
}

export interface CombinationResult {
  readonly totals: TrafficTotals;
  /** Packets that came back on each queue. */
  readonly received: readonly number[];
  readonly findings: MatrixFindings;
  readonly peer: PeerCounters;
}

/** Lets the packets run and returns what was counted; never waits without bound. @throws Error when they do not come back */
export async function runCombination(peer: MatrixPeer, run: CombinationRun): Promise<CombinationResult> {
  const { mode, peer: role, ringSize, mergeable, queues, rings, inOrder } = run.combination;
  const counters = TrafficCounters.create(queues);
  await peer.forward(mode);
  const port = await openPort(`vhost-user:${peer.path}`, {
    queues,
    ringSize,
    mergeable,
    ring: rings === 'split' ? 'split' : 'packed',
    eventIndex: rings === 'packed with events',
    inOrder,
    server: role === 'client',
    timeoutMs: ANSWER_MS,
  });
  let result: CombinationResult;
  try {
    await port.start();
    checkPort(port, run.combination);
    const findings = await runTraffic(port, counters, {
      memory: counters.memory,
      queues,
      packets: run.packets / queues,
      lengths: mergeable ? [...lengthsOf('imix'), MERGED_BYTES] : lengthsOf('imix'),
      ringSize,
      addresses: run.addresses ?? addressesAfter(mode, peer),
    });
    const received = Array.from({ length: queues }, (_, queue) => counters.of(queue)[TrafficCounter.RECEIVED]!);
    result = { totals: counters.totals(), received, findings, peer: await peer.counted() };
  } catch (error) {
    // What failed first is what counts: a testpmd that hangs fails the close as well.
    await port.close().catch(() => undefined);
    throw error;
  }
  await port.close();
  return result;
}

/** Whether the port is what was asked for: otherwise it proves something else. */
function checkPort(port: Port, { ringSize, mergeable, queues, rings, inOrder }: AnySize): void {
  assert.is(port.features?.has(Feature.RING_PACKED), rings !== 'split', 'RING_PACKED as asked for');
  assert.is(port.features?.has(Feature.EVENT_IDX), rings === 'packed with events', 'EVENT_IDX as asked for');
  assert.is(port.features?.has(Feature.MRG_RXBUF), mergeable, 'MRG_RXBUF as asked for');
  assert.is(port.features?.has(Feature.IN_ORDER), inOrder, 'IN_ORDER as asked for');
  const { rx, tx } = port.handle().session!;
  const sizes = new Array<number>(queues).fill(ringSize);
  assert.equal(
    [rx, tx].map((side) => side.map(({ ring }) => ring.size)),
    [sizes, sizes],
    'ring sizes as asked for',
  );
}

async function runTraffic(port: Port, counters: TrafficCounters, order: MatrixOrder): Promise<MatrixFindings> {
  let fault: Error | undefined;
  const onFault = (error: Error): void => {
    fault = error;
  };
  port.on('fault', onFault);
  const traffic = await launch(port, new URL('./dpdk-matrix-worker.js', import.meta.url), { threads: 1, data: order });
  try {
    let isOver = false;
    const over = traffic.finished.finally(() => {
      isOver = true;
    });
    over.catch(() => undefined);
    let received = -1;
    let movedAt = 0;
    while (!isOver) {
      if (fault !== undefined) throw fault;
      const totals = counters.totals();
      if (totals.RECEIVED !== received) movedAt = performance.now();
      received = totals.RECEIVED;
      if (performance.now() - movedAt > STALL_MS) {
        throw new Error(`nothing came back for ${STALL_MS / 1000} s: ${JSON.stringify(totals)}`);
      }
      await Promise.race([over, pause(100)]);
    }
    const [findings] = await over;
    return findings as MatrixFindings;
  } finally {
    port.off('fault', onFault);
    await traffic.stop();
  }
}

/** Asserts that every packet came back whole, once and in order, on its own queue, and that testpmd counted the same. */
export function assertAllBack({ totals, received, findings, peer }: CombinationResult, packets: number): void {
  assert.is(findings.broken, undefined, 'no ring stands still');
  const first = findings.differences.find((difference) => difference !== undefined);
  const { SENT, RECEIVED, VERIFIED, LOST, REORDERED, CORRUPT, SENT_BYTES, RECEIVED_BYTES } = totals;
  assert.equal(
    { SENT, RECEIVED, VERIFIED, LOST, REORDERED, CORRUPT, first },
    { SENT: packets, RECEIVED: packets, VERIFIED: packets, LOST: 0, REORDERED: 0, CORRUPT: 0, first: undefined },
  );
  assert.equal(received, new Array(received.length).fill(packets / received.length), 'each queue its own');
  assert.is(RECEIVED_BYTES, SENT_BYTES, 'bytes');
  const same = { received: packets, receivedBytes: SENT_BYTES, sent: packets, sentBytes: SENT_BYTES, failed: 0 };
  assert.equal(peer, same, 'testpmd counts the same');
}
