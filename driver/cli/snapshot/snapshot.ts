/** A running command at one moment: its ports with their queues, and its threads. Plain data, fit for JSON. */

/** Seen from the process: packets come in or go out; a control queue moves no packets. */
export type QueueWay = 'in' | 'out' | 'control';

export interface QueueSnapshot {
  /** As the command calls it: `receiveq 0`, `rx 0`. */
  readonly name: string;
  readonly way: QueueWay;
  /** Counted since the port is there, or since somebody reset its counters. */
  readonly packets: number;
  readonly bytes: number;
  /** By reason; reasons that never occurred may be left out. */
  readonly drops: Readonly<Record<string, number>>;
  /** Looks at the ring, and those of them that found nothing. */
  readonly polls: number;
  readonly emptyPolls: number;
  /** Times that there was no buffer for a packet. */
  readonly noBuffer: number;
  /** Kicks that the driver gave or calls that the device gave, and bursts that needed none. */
  readonly notifications?: {
    readonly kind: 'kick' | 'call';
    readonly sent: number;
    readonly saved: number;
  };
  /** What has no ring, or none now, leaves it out. */
  readonly ring?: {
    readonly size: number;
    /** Entries that the device has: buffers or packets that the driver made available. Left out where nobody can tell. */
    readonly withDevice?: number;
  };
}

export interface PortSnapshot {
  /** Tells it from the command's other ports. */
  readonly name: string;
  /** What it is: `guest`, `driver`, `net_vhost`. */
  readonly kind: string;
  /** What it is called in metrics; the same label names for all ports of a command. */
  readonly labels: Readonly<Record<string, string | number>>;
  readonly queues: readonly QueueSnapshot[];
}

export interface ThreadSnapshot {
  /** `main`, the name of a poll thread, or `others`. */
  readonly name: string;
  /** The kernel's number of it; 0 where several are taken together. */
  readonly id: number;
  /** Processor time since it began, in seconds. */
  readonly cpuSeconds: number;
  /** Where it ran last; left out where several are taken together. */
  readonly processor?: number;
}

export interface ProcessInfo {
  readonly pid: number;
  /** The command: `backend`, `loopback`, `testpmd`. */
  readonly command: string;
  readonly version: string;
  /** When it was started, in seconds since 1970. */
  readonly startedAt: number;
}

export interface Snapshot {
  readonly process: ProcessInfo;
  /** Seconds of a clock of the process that never goes back: rates are differences of two snapshots. */
  readonly at: number;
  readonly ports: readonly PortSnapshot[];
  readonly threads: readonly ThreadSnapshot[];
}

/** All that a command has to tell: its ports as they stand now. */
export type PortsSource = () => readonly PortSnapshot[];

export const dropsOf = ({ drops }: QueueSnapshot): number =>
  Object.values(drops).reduce((sum, value) => sum + value, 0);
