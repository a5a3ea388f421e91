/** What a front-end of the kernel's vhost-net is opened with, and which feature bits mean what there. */

import { ErrorCode, VirtioError } from '../errors.js';
import type { Libc } from '../pci/libc.js';
import { caps } from '../spec/caps.js';
import { Feature, FeatureSet } from '../spec/features.js';
import { isUnicastMac } from './vhost-user-options.js';

export interface VhostKernelTransportOptions {
  /** Queue pairs that will be used, 1 to 128. */
  readonly queuePairs: number;
  /** The port's address, not the interface's; a random one, locally administered, without it. */
  readonly macAddress?: Uint8Array;
  /** System calls; those of the C library unless given. */
  readonly libc?: Libc;
  /** The kernel's back-end and its taps: `/dev/vhost-net` and `/dev/net/tun` unless given. */
  readonly paths?: { readonly vhostNet: string; readonly tun: string };
}

/**
 * Bits that the kernel's offer stands for. Not ACCESS_PLATFORM, which has it ask for translations, nor ANY_LAYOUT, whose
 * number means a header of its own making there (VHOST_NET_F_VIRTIO_NET_HDR), nor LOG_ALL, which is for migration.
 */
export const KERNEL_FEATURES = FeatureSet.of(
  Feature.MRG_RXBUF,
  Feature.INDIRECT_DESC,
  Feature.EVENT_IDX,
  Feature.VERSION_1,
  Feature.IN_ORDER,
);
/** Bits that this transport serves by itself. MQ comes on top where there are more pairs. */
export const OWN_FEATURES = FeatureSet.of(Feature.MAC, Feature.STATUS, Feature.CTRL_VQ, Feature.CTRL_MAC_ADDR);

/** @throws VirtioError INVALID_ARGUMENT */
export function checkOptions({ queuePairs, macAddress }: VhostKernelTransportOptions): void {
  if (!Number.isInteger(queuePairs) || queuePairs < 1 || queuePairs > caps.queuePairs) {
    throw new VirtioError(ErrorCode.INVALID_ARGUMENT, `${queuePairs} queue pairs are not 1 to ${caps.queuePairs}`, {
      value: queuePairs,
    });
  }
  if (macAddress !== undefined && !isUnicastMac(macAddress)) {
    throw new VirtioError(
      ErrorCode.INVALID_ARGUMENT,
      'a port needs a MAC address of 6 bytes that is no group and not 0',
      { value: macAddress },
    );
  }
}
