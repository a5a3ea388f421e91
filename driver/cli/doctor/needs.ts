/** How much memory the devices that were asked about take, in pages of the size that they will be on. */

import { portMemory } from '../../net/port-memory.js';
import type { Situation } from './situation.js';

export interface PageSize {
  readonly name: string;
  /** As sysfs has it: `hugepages-2048kB`. */
  readonly folder: string;
  /** As the files of a memory control group have it: `hugetlb.2MB.max`. */
  readonly control: string;
  /** As the kernel's command line has it. */
  readonly boot: string;
  readonly bytes: number;
}

const MiB = 2 ** 20;
export const PAGE_SIZES = {
  '2M': { name: '2 MiB', folder: 'hugepages-2048kB', control: '2MB', boot: '2M', bytes: 2 * MiB },
  '1G': { name: '1 GiB', folder: 'hugepages-1048576kB', control: '1GB', boot: '1G', bytes: 1024 * MiB },
} as const satisfies Readonly<Record<string, PageSize>>;

/** A device with physical addresses takes hugepages and nothing else; so does who asks for them. */
export const needsHugepages = ({ driven, options }: Situation): boolean =>
  options.memory === '2M' || options.memory === '1G' || driven.some(({ addressing }) => addressing === 'physical');

/** The hugepages that the port of each device would be on. */
export const pageSize = ({ options }: Situation): PageSize => PAGE_SIZES[options.memory === '1G' ? '1G' : '2M'];

/** Hugepages for all devices; for one where none was named. */
export function pagesNeeded(situation: Situation): number {
  const { rings, packets } = portMemory(situation.options);
  const { bytes } = pageSize(situation);
  const perDevice = Math.ceil(rings / bytes) + Math.ceil(packets / bytes);
  return perDevice * Math.max(1, situation.driven.length);
}

/**
 * Bytes that count against the memlock limit. Memory at physical addresses is locked, and what VFIO maps is pinned: the
 * kernel counts each on its own.
 */
export function lockedBytes(situation: Situation): number {
  const { driven } = situation;
  const { rings, packets } = portMemory(situation.options);
  const { bytes } = pageSize(situation);
  const rounded = Math.ceil(rings / bytes) * bytes + Math.ceil(packets / bytes) * bytes;
  const times = driven.map(({ access, addressing }) => (addressing === 'physical' && access === 'vfio' ? 2 : 1));
  return times.reduce((sum: number, each) => sum + each * rounded, 0);
}

/** Mappings that VFIO makes: physical pages need not be neighbours. */
export function mappingsNeeded(situation: Situation): number {
  const behind = situation.driven.filter(({ access }) => access === 'vfio');
  const scattered = behind.some(({ addressing }) => addressing !== 'translated');
  return scattered ? pagesNeeded(situation) : 2 * behind.length;
}
