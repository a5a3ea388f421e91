/** What both sides of a `net_pcap` know of its queues. */

import type { SoftwareQueues } from './software-device.js';

/** As DPDK writes them. */
export const PCAP_SNAP_LENGTH = 65_535;

/** Request of the control side: how far the files have been read, by queue. */
export const PCAP_POSITIONS = 'positions';

/** What an lcore is given. */
export interface PcapQueues extends SoftwareQueues {
  /** Files by queue; fewer than there are queues where nothing is received, or what is sent is dropped. */
  readonly rxFiles: readonly string[];
  readonly txFiles: readonly string[];
  /** `infinite_rx`: the packets of a file come again and again. */
  readonly isInfinite: boolean;
  /** Packets of each file that have been received already. */
  readonly positions: readonly number[];
}
