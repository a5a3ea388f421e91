/** What a forward engine works on: packets of one receive queue, which go to one transmit queue. */

import type { Burst } from '../../../thread.js';
import type { PolledRxQueue, PolledTxQueue } from './polled-port.js';

/** As the control side makes it; plain data. */
export interface StreamSetup {
  readonly rxPort: number;
  readonly rxQueue: number;
  readonly txPort: number;
  readonly txQueue: number;
  /** Number of the stream over all lcores, and of its counters. */
  readonly index: number;
}

/** Counters of a stream, shared with the control side: written by the lcore, read by anybody. */
export const StreamCounter = {
  RX_PACKETS: 0,
  TX_PACKETS: 1,
  /** Not taken by the transmit queue, and freed. */
  FWD_DROPPED: 2,
  RX_BAD_IP_CHECKSUM: 3,
  RX_BAD_L4_CHECKSUM: 4,
  RX_BAD_OUTER_L4_CHECKSUM: 5,
  RX_BAD_OUTER_IP_CHECKSUM: 6,
  /** Turns of the processor's clock in turns that moved packets. */
  BUSY_CYCLES: 7,
  /** For noisy: high-water marks and so on may follow. */
  COUNT: 8,
} as const;

/** On the lcore. */
export interface Stream {
  readonly setup: StreamSetup;
  readonly rx: PolledRxQueue;
  readonly tx: PolledTxQueue;
  /** Empty between two turns. */
  readonly burst: Burst;
  readonly counters: Float64Array;
}

/** One mode of forwarding, made once for a stream when forwarding starts; compiled for it where that pays. */
export interface ForwardEngine {
  /** One turn: receives at most a burst, works on it, sends it. Returns how many packets moved. */
  forward(): number;
  close?(): void;
}
