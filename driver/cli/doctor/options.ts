/** What `virtio-pmd doctor` is told. */

import type { PciAccess } from '../../index.js';

export const PCI_ACCESSES = ['vfio', 'noiommu', 'sysfs'] as const satisfies readonly PciAccess[];
export const PAGE_CHOICES = ['auto', '4K', '2M', '1G'] as const;

/** The options as the command line has them. */
export interface DoctorOptions {
  /** How devices are to be reached. */
  readonly pciAccess: PciAccess;
  readonly queues: number;
  readonly ringSize: number;
  readonly burst: number;
  readonly memory: (typeof PAGE_CHOICES)[number];
  /** Sleeping until a packet comes is wanted. */
  readonly interrupts?: boolean;
  readonly json?: boolean;
}
