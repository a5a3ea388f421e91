/** What the engines of a run of forwarding are made from: plain data, as the control side sends it to the lcores. */

/** The modes of `set fwd`, in the order in which testpmd lists them. */
export const forwardModes = [
  'io',
  'mac',
  'macswap',
  'flowgen',
  'rxonly',
  'txonly',
  'csum',
  'icmpecho',
  'noisy',
  '5tswap',
  'shared-rxq',
] as const;
export type ForwardMode = (typeof forwardModes)[number];

/** What engines need to know of a port. */
export interface PortForwardSettings {
  readonly macAddress: Uint8Array;
  /** Where `mac` and others send packets of this transmit port: `set eth-peer`. */
  readonly peerAddress: Uint8Array;
  /** Configured offloads, bits of `RTE_ETH_RX_OFFLOAD_*` and `RTE_ETH_TX_OFFLOAD_*`. */
  readonly rxOffloads: bigint;
  readonly txOffloads: bigint;
  /** `tx_vlan set`: the tags that transmit offloads put in. */
  readonly txVlan: number;
  /** `tso set`: bytes of a segment's payload; 0 is off. */
  readonly tsoSegmentBytes: number;
  readonly tunnelTsoSegmentBytes: number;
  /** `csum parse-tunnel`. */
  readonly parsesTunnels: boolean;
  /** `csum mac-swap`, on at first: whether `csum` writes the addresses of Ethernet. */
  readonly swapsMacs: boolean;
}

/** `set txsplit`: whether packets that are made, or sent by `csum`, are cut into the segments of `set txpkts`. */
export type SegmentSplit = 'off' | 'on' | 'rand';

/** Options of `noisy`: a queue that packets wait in, and memory that is looked at for each. */
export interface NoisySettings {
  /** Packets of `--noisy-tx-sw-buffer-size`; 0 is none. */
  readonly bufferPackets: number;
  /** `--noisy-tx-sw-buffer-flushtime`; 0 is never. */
  readonly flushMs: number;
  /** MiB of `--noisy-lkup-memory`. */
  readonly memoryMiB: number;
  readonly reads: number;
  readonly writes: number;
  readonly readWrites: number;
}

/** Bits of `RTE_ETH_TX_OFFLOAD_*` that engines look at. */
export const TxOffload = {
  VLAN_INSERT: 0x1n,
  IPV4_CKSUM: 0x2n,
  UDP_CKSUM: 0x4n,
  TCP_CKSUM: 0x8n,
  SCTP_CKSUM: 0x10n,
  OUTER_IPV4_CKSUM: 0x80n,
  OUTER_UDP_CKSUM: 0x40_0000n,
} as const;

export interface ForwardSettings {
  readonly mode: ForwardMode;
  /** `set fwd MODE retry`; the times are of `set burst tx delay`. */
  readonly retries: boolean;
  readonly retryDelayUs: number;
  readonly retryCount: number;
  /** Packets that a receive asks for, 1 to 512. */
  readonly burst: number;
  /** 1 shows received packets, 2 sent ones, 3 both; icmpecho and csum tell what they do from 1 on. */
  readonly verbose: number;
  readonly recordsBursts: boolean;
  /** Turns of the processor's clock in a millisecond where they are to be counted; else 0. */
  readonly cyclesPerMs: number;
  /** `set txpkts`: bytes of each segment of a packet that is made. */
  readonly segmentBytes: readonly number[];
  readonly segmentSplit: SegmentSplit;
  /** `--tx-ip` and `--tx-udp`. */
  readonly txSourceIp: number;
  readonly txDestinationIp: number;
  readonly txSourcePort: number;
  readonly txDestinationPort: number;
  readonly txMultiFlow: boolean;
  readonly flowgenFlows: number;
  readonly flowgenClones: number;
  readonly noisy: NoisySettings;
  /** By the numbers of the ports. */
  readonly ports: ReadonlyMap<number, PortForwardSettings>;
}

/** @throws RangeError for a port that no settings came with */
export function portSettings(settings: ForwardSettings, port: number): PortForwardSettings {
  const found = settings.ports.get(port);
  if (found === undefined) throw new RangeError(`nothing is known of port ${port}`);
  return found;
}
