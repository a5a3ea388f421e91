/** What follows `net_vhost0` on the command line: DPDK's arguments and its usual values. */

import { ErrorCode, VirtioError } from '../../../errors.js';
import { DeviceArguments } from './device-arguments.js';

const KEYS = [
  'iface',
  'queues',
  'client',
  'iommu-support',
  'postcopy-support',
  'tso',
  'linear-buffer',
  'ext-buffer',
  'legacy-ol-flags',
] as const;
/** `RTE_MAX_QUEUES_PER_PORT`, and what a device of this package has at most. */
const MAX_QUEUES = 128;

export interface VhostArguments {
  readonly path: string;
  readonly queues: number;
  /** Connect to a front-end that listens, in place of listening. */
  readonly client: boolean;
  readonly iommu: boolean;
  /** Offer segmentation of what the guest sends. */
  readonly tso: boolean;
}

/** @throws VirtioError INVALID_ARGUMENT for what the device does not take, UNSUPPORTED for `postcopy-support` */
export function parseVhostArguments(devargs: string): VhostArguments {
  const given = DeviceArguments.parse(devargs, KEYS);
  const path = given.last('iface');
  if (path === undefined || path === '') {
    throw new VirtioError(ErrorCode.INVALID_ARGUMENT, 'net_vhost has no socket', {
      advice: 'name its path: iface=/run/vhost.sock',
    });
  }
  const isOn = (key: (typeof KEYS)[number]): boolean => number(given, key, 0) !== 0;
  if (isOn('postcopy-support')) {
    throw new VirtioError(ErrorCode.UNSUPPORTED, 'net_vhost does not migrate by postcopy', {
      value: 'postcopy-support=1',
      requirement: 'vhost-user VHOST_USER_PROTOCOL_F_PAGEFAULT',
      advice: 'leave it away: guests migrate by precopy',
    });
  }
  const queues = number(given, 'queues', 1);
  if (queues < 1 || queues > MAX_QUEUES) {
    throw new VirtioError(ErrorCode.INVALID_ARGUMENT, `net_vhost has 1 to ${MAX_QUEUES} queue pairs, not ${queues}`, {
      value: queues,
    });
  }
  // Buffers are linear, or lie in several of the pool: `linear-buffer` and `ext-buffer` are about neither.
  return { path, queues, client: isOn('client'), iommu: isOn('iommu-support'), tso: isOn('tso') };
}

/** As `strtoul` has it: what begins with no digit is 0. */
function number(given: DeviceArguments, key: (typeof KEYS)[number], usual: number): number {
  const text = given.last(key);
  return text === undefined ? usual : Number(/^(0x[0-9a-f]+|\d+)/i.exec(text)?.[0] ?? 0);
}
