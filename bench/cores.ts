/** The two cores of a pairing, and what the kernel believes of how they are related. */

import { readFileSync } from 'node:fs';
import { availableParallelism } from 'node:os';

import { ErrorCode, VirtioError } from 'virtio-pmd';

/** The host's side forwards on one core, the guest's on the other; each side's command line sleeps on the other's. */
export interface Cores {
  readonly host: number;
  readonly guest: number;
}

/** What /sys tells of two processors. Virtual machines often tell less than there is. */
export interface Topology {
  readonly sameCore: boolean;
  readonly samePackage: boolean;
}

/** The cores that are used: processors 1 and 0. */
export function chooseCores(): Cores {
  if (availableParallelism() < 2) {
    throw new VirtioError(ErrorCode.UNSUPPORTED, 'a side-by-side benchmark needs two processors', { value: 1 });
  }
  return { host: 1, guest: 0 };
}

/** Whether the kernel takes the two processors for threads of one core, and for parts of one package. */
export function readTopology(cores: Cores): Topology {
  const same = (file: string) => topologyFile(cores.host, file) === topologyFile(cores.guest, file);
  return { sameCore: same('thread_siblings_list'), samePackage: same('physical_package_id') };
}

function topologyFile(processor: number, file: string): string {
  try {
    return readFileSync(`/sys/devices/system/cpu/cpu${processor}/topology/${file}`, 'utf8').trim();
  } catch {
    return '';
  }
}
