/** What options and commands set for the whole application, with testpmd's own defaults. */

import type { ForwardMode } from './lcore/forward-settings.js';

export type PortTopology = 'paired' | 'chained' | 'loop';

/** The greatest burst (`MAX_PKT_BURST`). */
export const MAX_BURST = 512;
/** Segments of a packet that txonly makes (`RTE_MAX_SEGS_PER_PKT`). */
export const MAX_SEGMENTS = 255;

/** Thresholds of a queue that were given; undefined is the driver's choice. */
export interface Thresholds {
  prefetch: number | undefined;
  host: number | undefined;
  writeBack: number | undefined;
  free: number | undefined;
  /** Transmit only. */
  rs: number | undefined;
  /** Receive only. */
  dropEnable: boolean;
}

const noThresholds = (): Thresholds => ({
  prefetch: undefined,
  host: undefined,
  writeBack: undefined,
  free: undefined,
  rs: undefined,
  dropEnable: false,
});

/** All of it can be changed while the application runs; what is read when is the reader's matter. */
export class Settings {
  isInteractive = false;
  autoStart = false;
  txFirst = false;
  cmdlineFile: string | undefined;
  /** Seconds between two reports; 0 for none. */
  statsPeriod = 0;
  displayXstats: readonly string[] = [];
  json = false;

  forwardMode: ForwardMode = 'io';
  retry = false;
  /** Microseconds that a retry waits, and how often it tries (`set burst tx delay`). */
  burstTxDelay = 1;
  burstTxRetries = 64;
  /** Packets of a burst. */
  burst = 32;
  topology: PortTopology = 'paired';
  /** Receive queues are emptied before forwarding starts. */
  flushRx = true;
  verbose = 0;
  recordCoreCycles = false;
  recordBurstStats = false;

  rxQueues = 1;
  txQueues = 1;
  /** Entries of each ring; 0 is the driver's choice. */
  rxDescriptors = 0;
  txDescriptors = 0;
  readonly rxThresholds = noThresholds();
  readonly txThresholds = noThresholds();
  /** Bits of `RTE_ETH_RX_OFFLOAD_*` and `RTE_ETH_TX_OFFLOAD_*` that new ports get. */
  rxOffloads = 0n;
  /** `RTE_ETH_TX_OFFLOAD_MBUF_FAST_FREE` where a port has it. */
  txOffloads = 0x1_0000n;
  /** Bits of `RTE_ETH_RSS_*`: IP. */
  rssTypes = 0xa38cn;
  maxPacketLength = 0;
  maxLroPacketSize = 0;

  linkCheck = true;
  deviceStart = true;
  lscInterrupt = true;
  numa = true;

  /** Bytes of each packet buffer with its headroom, one number a segment. */
  mbufSizes: readonly number[] = [2176];
  /** 0 is testpmd's choice. */
  totalMbufs = 0;
  mbufCache = 250;

  /** txonly: lengths of the segments that make a packet. */
  txSegments: readonly number[] = [64];
  txSplit: 'off' | 'on' | 'rand' = 'off';
  /** Nanoseconds between bursts and between packets. */
  txTimes: readonly [inter: number, intra: number] = [0, 0];
  txMultiFlow = false;
  /** IPv4 addresses and UDP ports of txonly. */
  txIpSource = 0xc612_0001;
  txIpDestination = 0xc612_0002;
  txUdpSource = 9;
  txUdpDestination = 9;
  flowgenClones = 0;
  flowgenFlows = 1024;
  rxOffsets: readonly number[] = [];
  rxSegments: readonly number[] = [];
  rxHeaders: readonly string[] = [];

  noisyBufferPackets = 0;
  /** Milliseconds. */
  noisyFlushTime = 0;
  noisyMemoryMegabytes = 0;
  noisyWrites = 0;
  noisyReads = 0;
  noisyReadsWrites = 0;

  xstatsHideZero = false;
  /** Where metrics are served, on the loopback interface; 0 is any port. */
  metricsPort: number | undefined;
  /** Where somebody may look on, in place of the usual one; false is nowhere. */
  controlSocket: string | false | undefined;
  /** Addresses of peers that `--eth-peer` and `set eth-peer` gave. */
  readonly peers = new Map<number, Uint8Array>();

  /** Where `mac` sends the packets of a port: 02:00:00:00:00 and the port's number, unless it was set. */
  peerAddress(port: number): Uint8Array {
    return this.peers.get(port) ?? Uint8Array.of(2, 0, 0, 0, 0, port);
  }

  get txPacketLength(): number {
    return this.txSegments.reduce((sum, length) => sum + length, 0);
  }
}
