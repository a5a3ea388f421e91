/** What `virtio-pmd loopback` is told, and which of it goes together. */

import type { VirtioError } from '../../errors.js';

export const SMALLEST_PACKET = 64;
/** TCP segmentation makes no longer ones: "The maximum size … 65550 bytes" with Ethernet header (virtio 1.2 §5.1.6.3.1). */
export const LARGEST_PACKET = 65_550;
export const PAGE_CHOICES = ['auto', '4K', '2M', '1G'] as const;
/** Ways to a PCI device. */
export const PCI_ACCESSES = ['vfio', 'noiommu', 'sysfs'] as const;
export const IDLE_POLICIES = ['spin', 'pause', 'yield', 'sleep'] as const;
const DEFAULT_PACKETS = 1_000_000;

/** The options as the command line has them; times in milliseconds. */
export interface LoopbackOptions {
  readonly packets?: number;
  readonly duration?: number;
  readonly size: number | 'imix';
  readonly burst: number;
  readonly pcapIn?: string;
  readonly pcapOut?: string;
  readonly verify: boolean;
  readonly transport?: 'pci' | 'vhost-user';
  readonly ring: 'split' | 'packed';
  readonly ringSize: number;
  readonly queues: number;
  readonly demand?: readonly string[];
  readonly socketPath?: string;
  readonly connect?: string;
  readonly device?: string;
  readonly pciAccess?: (typeof PCI_ACCESSES)[number];
  readonly legacy?: boolean;
  readonly reconnect?: boolean;
  readonly memory: (typeof PAGE_CHOICES)[number];
  readonly lock?: boolean;
  readonly lcores?: readonly number[];
  readonly idle: (typeof IDLE_POLICIES)[number];
  readonly controlSocket?: string | false;
  readonly json?: boolean;
}

/** The transport: what was asked for, or what the other options need. */
export const transportOf = (options: LoopbackOptions): 'pci' | 'vhost-user' =>
  options.transport ?? (options.socketPath === undefined && options.connect === undefined ? 'pci' : 'vhost-user');

/** Packets to send over all queues; Infinity when only time ends the run. */
export function packetLimit(options: LoopbackOptions, capturePackets: number | undefined): number {
  if (options.packets !== undefined) return options.packets;
  return options.duration === undefined ? (capturePackets ?? DEFAULT_PACKETS) : Number.POSITIVE_INFINITY;
}

/** Finds options that exclude each other. @throws what `wrong` makes, or VirtioError UNSUPPORTED */
export function checkOptions(options: LoopbackOptions, wrong: (message: string) => VirtioError): void {
  const { connect, device, socketPath, transport, ringSize } = options;
  const isVhostUser = connect !== undefined || socketPath !== undefined;
  if (isVhostUser && transport === 'pci') {
    throw wrong(`${connect === undefined ? '--socket-path' : '--connect'} is about vhost-user, and --transport is pci`);
  }
  if (options.reconnect === true && connect === undefined)
    throw wrong('--reconnect is about the back-end of --connect');
  if (device !== undefined && transport === 'vhost-user')
    throw wrong('--device is a PCI device, and --transport is vhost-user');
  if (options.legacy === true && device === undefined) throw wrong('--legacy is about the device of --device');
  if (options.pciAccess !== undefined && device === undefined)
    throw wrong('--pci-access is about the device of --device');
  if ((connect ?? device) !== undefined && (options.lcores?.length ?? 0) > 1) {
    const which = connect === undefined ? '--device' : '--connect';
    throw wrong(`--lcores has one processor with ${which}: the back-end is not ours to pin`);
  }
  if (options.ring === 'split' && (ringSize & (ringSize - 1)) !== 0)
    throw wrong(`--ring-size is a power of two, not ${ringSize}: of --ring packed any number`);
}
