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
  COUNT: 8,
} as const;

/** With `record-burst-stats`: how many bursts of each size there were, of 0 to 512 packets, behind the counters. */
export const BurstCounter = { RX: 8, TX: 8 + 513, SIZES: 513, END: 8 + 2 * 513 } as const;

/** On the lcore. */
export interface Stream {
  readonly setup: StreamSetup;
  readonly rx: PolledRxQueue;
  readonly tx: PolledTxQueue;
  /** Empty between two turns. */
  readonly burst: Burst;
  /** `StreamCounter`s, and `BurstCounter`s behind them. */
  readonly counters: Float64Array;
}

/** One mode of forwarding, made once for a stream when forwarding starts. */
export interface ForwardEngine {
  /** One turn: receives at most a burst, works on it, sends it. Returns how many packets moved. */
  forward(): number;
  /** Frees what it holds. */
  close?(): void;
}
