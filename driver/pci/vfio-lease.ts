/** Containers that nobody named: VFIO gives a group out once, so that functions of one group share theirs. */

import { ErrorCode, VirtioError } from '../errors.js';
import { VfioContainer, type VfioContainerOptions } from './vfio-container.js';

interface Shared {
  readonly container: VfioContainer;
  /** Addresses of the functions that have it. */
  readonly functions: Set<string>;
}

/** By the path of the group. */
const shared = new Map<string, Shared>();

/** A function's share in a container. */
export interface VfioLease {
  readonly container: VfioContainer;
  /** Gives it back; the last one closes the container. Idempotent. */
  end(): void;
}

/**
 * The container of a group: what another function of it has in this process, or a new one. They share their addresses, which
 * costs no safety: what is in one group the IOMMU cannot keep apart.
 *
 * @throws VirtioError IN_USE when this process has the function already; as `VfioContainer.open`
 */
export function leaseContainer(address: string, groupPath: string, options: VfioContainerOptions): VfioLease {
  const there = shared.get(groupPath);
  if (there?.functions.has(address)) {
    throw new VirtioError(ErrorCode.IN_USE, `${address} is in use: this process has it open`, {
      value: address,
      advice: 'close it first',
    });
  }
  const entry = there ?? { container: VfioContainer.open(options), functions: new Set<string>() };
  entry.functions.add(address);
  shared.set(groupPath, entry);
  return {
    container: entry.container,
    end() {
      if (!entry.functions.delete(address) || entry.functions.size > 0) return;
      shared.delete(groupPath);
      entry.container.close();
    },
  };
}
