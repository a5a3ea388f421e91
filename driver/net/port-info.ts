/** What a port and its device can do, as rte_eth_dev_info_get tells it. */

import { virtioNetCtrlMac } from '../spec/control.js';
import { Feature } from '../spec/features.js';
import { MAC_BYTES, MTU_MAX, MTU_MIN } from '../spec/net-config.js';
import { CONTROL_DATA_BYTES } from './control-queue.js';
import type { RssLimits } from './control-steering.js';
import type { PortControl } from './port-control.js';
import type { PortDevice } from './port-device.js';
import { MAX_QUEUE_PAIRS, MAX_RING_SIZE, MIN_RING_SIZE } from './port-options.js';

/** The least and the most that is possible. */
export interface Bounds {
  readonly min: number;
  readonly max: number;
}

export interface PortInfo {
  /** Queue pairs that the device has, as far as this driver uses them. */
  readonly maxQueuePairs: number;
  /** Entries of a ring; the device may have fewer. A power of two on a split ring. */
  readonly ringSize: Bounds;
  /** What `setMtu` takes. */
  readonly mtu: Bounds;
  /** Addresses beside the port's own before the device has to pass more than those; 0 without CTRL_RX. */
  readonly maxMacAddresses: number;
  /** Undefined without RSS. */
  readonly rss: RssLimits | undefined;
}

/** Two tables, each with its length. */
const MAC_ADDRESSES = Math.floor((CONTROL_DATA_BYTES - 2 * virtioNetCtrlMac.bytes) / MAC_BYTES);

/** Resolves to what the device of a port can do; of one that never was started, to what any can. */
export async function portInfo({ limits, live }: PortDevice, control: PortControl): Promise<PortInfo> {
  const hasRss = live?.features.has(Feature.RSS) === true;
  return {
    maxQueuePairs: Math.min(limits?.maxPairs ?? MAX_QUEUE_PAIRS, MAX_QUEUE_PAIRS),
    ringSize: { min: MIN_RING_SIZE, max: MAX_RING_SIZE },
    mtu: { min: MTU_MIN, max: limits?.maxMtu ?? MTU_MAX },
    maxMacAddresses: live === undefined || live.features.has(Feature.CTRL_RX) ? MAC_ADDRESSES : 0,
    rss: hasRss ? await control.rssLimits() : undefined,
  };
}
