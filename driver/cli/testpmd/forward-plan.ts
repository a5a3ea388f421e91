/** Which lcore forwards from which receive queue to which transmit queue: the topologies of testpmd. */

import type { ForwardMode } from './lcore/forward-settings.js';
import type { StreamSetup } from './lcore/stream.js';
import type { PortTopology } from './settings.js';

/** What the streams follow from. */
export interface ForwardShape {
  readonly forwardMode: ForwardMode;
  readonly topology: PortTopology;
  readonly rxQueues: number;
  readonly txQueues: number;
}

export interface ForwardPlan {
  readonly mode: ForwardMode;
  /** In forwarding order. */
  readonly ports: readonly number[];
  /** The forwarding lcores, in order, with the streams that each turns. */
  readonly lcores: readonly { readonly lcore: number; readonly streams: readonly StreamSetup[] }[];
  /** All of them, by their number. */
  readonly streams: readonly StreamSetup[];
  /** The last port of an odd number of paired ones forwards to itself, which testpmd warns of once. */
  readonly pairsWithItself: boolean;
}

/**
 * @param ports their numbers, in forwarding order
 * @param lcores those that may forward; no more are used than there are streams
 */
export function planForwarding(shape: ForwardShape, ports: readonly number[], lcores: readonly number[]): ForwardPlan {
  const streams = shape.forwardMode === 'icmpecho' ? echoStreams(shape, ports) : crossStreams(shape, ports);
  const used = lcores.slice(0, Math.min(lcores.length, mostLcores(shape, ports.length, streams.length)));
  const pairs = shape.forwardMode !== 'icmpecho' && shape.topology === 'paired';
  return {
    mode: shape.forwardMode,
    ports,
    lcores: share(streams, used),
    streams,
    pairsWithItself: pairs && ports.length % 2 === 1,
  };
}

/** Queue by queue, and within a queue port by port. */
function crossStreams({ topology, rxQueues, txQueues }: ForwardShape, ports: readonly number[]): StreamSetup[] {
  const queues = Math.min(rxQueues, txQueues) > 1 ? Math.min(rxQueues, txQueues) : 1;
  const streams: StreamSetup[] = [];
  for (let queue = 0; queue < queues; queue++) {
    for (const [place, rxPort] of ports.entries()) {
      const txPort = ports[peerOf(place, ports.length, topology)]!;
      streams.push({ rxPort, rxQueue: queue, txPort, txQueue: queue, index: streams.length });
    }
  }
  return streams;
}

/** Answers go back on the port that the question came on: port by port, and within a port queue by queue. */
function echoStreams({ rxQueues, txQueues }: ForwardShape, ports: readonly number[]): StreamSetup[] {
  const streams: StreamSetup[] = [];
  for (const port of ports) {
    for (let queue = 0; queue < rxQueues; queue++) {
      streams.push({ rxPort: port, rxQueue: queue, txPort: port, txQueue: queue % txQueues, index: streams.length });
    }
  }
  return streams;
}

function peerOf(place: number, count: number, topology: PortTopology): number {
  if (topology === 'loop') return place;
  if (topology === 'chained') return (place + 1) % count;
  const peer = place ^ 1;
  return peer < count ? peer : place;
}

function mostLcores({ forwardMode, txQueues }: ForwardShape, ports: number, streams: number): number {
  return forwardMode === 'icmpecho' ? Math.min(txQueues * ports, streams) : streams;
}

/** Deals consecutive streams out, the same number to each lcore; the last ones get one more where that does not go. */
function share(streams: readonly StreamSetup[], lcores: readonly number[]): ForwardPlan['lcores'] {
  const each = Math.floor(streams.length / lcores.length);
  const withOneMore = lcores.length - (streams.length % lcores.length);
  let next = 0;
  return lcores.map((lcore, index) => {
    const first = next;
    next += index < withOneMore ? each : each + 1;
    return { lcore, streams: streams.slice(first, next) };
  });
}

/** What testpmd tells of a plan for icmpecho when it is made with `set verbose` on. */
export function echoPlanText({ lcores, ports, streams }: ForwardPlan): string {
  const counts = `fwd_cores=${lcores.length} fwd_ports=${ports.length} fwd_streams=${streams.length}`;
  const rows = lcores.flatMap(({ streams: own }, core) => [
    `  core=${core}: `,
    ...own.map(
      ({ rxPort, rxQueue, txQueue }, stream) => `  stream=${stream} port=${rxPort} rxq=${rxQueue} txq=${txQueue}`,
    ),
  ]);
  return [`icmp_echo_config_setup ${counts}`, ...rows, ''].join('\n');
}
