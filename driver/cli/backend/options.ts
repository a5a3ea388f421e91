/** What `virtio-pmd backend` is told, and which of it goes together. */

import type { VirtioError } from '../../errors.js';
import type { FeatureChoice } from './feature-choice.js';

/** Where packets go to and come from. */
export const MODES = ['echo', 'icmpecho', 'switch', 'sink', 'source', 'pcap'] as const;
export type Mode = (typeof MODES)[number];

export const PAGE_CHOICES = ['auto', '4K', '2M', '1G'] as const;
export const IDLE_POLICIES = ['spin', 'pause', 'yield', 'sleep'] as const;
/** Poll threads at most: more than any machine has processors to spare. */
export const MOST_THREADS = 64;

/** The options as the command line has them; times in milliseconds. */
export interface BackendOptions {
  readonly socketPath?: readonly string[];
  readonly fd?: number;
  readonly client?: boolean;
  readonly socketMode?: number;
  readonly socketGroup?: string;
  readonly maxConnections?: number;
  readonly queues: number;
  readonly features?: FeatureChoice;
  readonly iommu?: boolean;
  readonly mode?: Mode;
  readonly tap?: string;
  readonly pcapIn?: string;
  readonly pcapOut?: string;
  readonly rate?: number;
  readonly size?: number | 'imix';
  readonly lcores?: readonly number[];
  readonly idle: (typeof IDLE_POLICIES)[number];
  readonly memory: (typeof PAGE_CHOICES)[number];
  readonly stats?: number;
  readonly metrics?: number;
  readonly controlSocket?: string | false;
  readonly describe?: boolean;
  readonly json?: boolean;
  readonly printCapabilities?: boolean;
}

/** The mode: what was asked for, or what the other options are about. */
export function modeOf(options: BackendOptions): Mode {
  if (options.mode !== undefined) return options.mode;
  if (options.tap !== undefined) return 'switch';
  if (options.pcapIn !== undefined || options.pcapOut !== undefined) return 'pcap';
  return 'echo';
}

/**
 * Whether a device is on one thread as a whole: its packets go to one file; or it is a member of a switch, and the other
 * guests are on other threads.
 */
export const isSingle = (mode: Mode): boolean => mode === 'pcap' || mode === 'switch';

/** Finds options that exclude each other, or lack one another. @throws what `wrong` makes */
export function checkOptions(options: BackendOptions, wrong: (message: string) => VirtioError): void {
  const { socketPath = [], fd, client } = options;
  // Each is incompatible with the other (vhost-user "Back-end program conventions").
  if (fd !== undefined && socketPath.length > 0) throw wrong('--fd and --socket-path exclude each other');
  if (fd === undefined && socketPath.length === 0) throw wrong('say where: --socket-path=PATH, or --fd=FDNUM');
  const twice = socketPath.find((path, index) => socketPath.indexOf(path) !== index);
  if (twice !== undefined) throw wrong(`--socket-path has ${twice} twice`);
  for (const [option, value] of Object.entries({
    '--client': client,
    '--socket-mode': options.socketMode,
    '--socket-group': options.socketGroup,
    '--max-connections': options.maxConnections,
  })) {
    if (value === undefined) continue;
    if (fd !== undefined) throw wrong(`${option} is about --socket-path, and --fd is one connection already`);
    if (client === true && option !== '--client') throw wrong(`${option} is about listening, and --client connects`);
  }
  checkMode(options, wrong);
}

function checkMode(options: BackendOptions, wrong: (message: string) => VirtioError): void {
  const mode = modeOf(options);
  const belongs = {
    '--rate': ['source', options.rate],
    '--size': ['source', options.size],
    '--tap': ['switch', options.tap],
  } as const;
  for (const [option, [owner, value]] of Object.entries(belongs)) {
    if (value !== undefined && mode !== owner) throw wrong(`${option} is about --mode ${owner}, not ${mode}`);
  }
  const hasFile = options.pcapIn !== undefined || options.pcapOut !== undefined;
  if (mode === 'pcap' && !hasFile) throw wrong('--mode pcap needs --pcap-in, --pcap-out or both');
  if (mode !== 'pcap' && hasFile) throw wrong(`--pcap-in and --pcap-out are about --mode pcap, not ${mode}`);
}
