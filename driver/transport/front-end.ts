/** What front-ends have in common that stand for the device's registers themselves: vhost-user and vhost-kernel. */

import { ErrorCode, VirtioError } from '../errors.js';
import type { FeatureSet } from '../spec/features.js';
import type { OfferedFeatures } from '../spec/transport.js';

/** @throws VirtioError FEATURE_MISSING for features that neither the device nor the front-end offers */
export function checkOffered(address: string, features: FeatureSet, { device, transport }: OfferedFeatures): void {
  const unknown = features.difference(device.union(transport));
  if (unknown.isEmpty) return;
  throw new VirtioError(ErrorCode.FEATURE_MISSING, `${address} does not offer ${unknown}`, { value: unknown });
}

/** Returns a copy of a part of the front-end's own configuration space. @throws VirtioError INVALID_ARGUMENT outside of it */
export function readOwnConfig(config: Uint8Array, offset: number, bytes: number): Uint8Array {
  if (offset < 0 || bytes < 0 || offset + bytes > config.length) {
    throw new VirtioError(ErrorCode.INVALID_ARGUMENT, `${bytes} bytes at ${offset} are outside the configuration`, {
      value: offset,
      requirement: 'virtio 1.2 §5.1.4',
    });
  }
  return config.slice(offset, offset + bytes);
}
