/** What can be shown of a connection: plain objects, fit for JSON. Addresses and other 64-bit numbers are hexadecimal text. */

/** One feature bit, and what became of it. */
export interface FeatureDescription {
  readonly bit: number;
  readonly name: string;
  /** Whether GET_FEATURES, or GET_PROTOCOL_FEATURES, has it. */
  readonly isOffered: boolean;
  readonly isAccepted: boolean;
  /** Who offered it, who wanted it, where it was dropped and why. */
  readonly why: string;
}

/** One region of the memory that the front-end shares. */
export interface RegionDescription {
  readonly guestAddress: string;
  /** Where the front-end has it. */
  readonly userAddress: string;
  readonly fileOffset: number;
  readonly bytes: number;
}

/** Who has to do something before a ring moves on. */
export type NextMove = 'front-end' | 'driver' | 'device' | 'nobody';

/** One ring as the front-end set it up. */
export interface RingDescription {
  readonly ring: number;
  /** `receiveq 0`, `transmitq 0`, `controlq`. */
  readonly queue: string;
  /** Entries; 0 until they are known. */
  readonly size: number;
  readonly state: 'stopped' | 'waiting' | 'started' | 'broken';
  readonly isEnabled: boolean;
  /** Undefined until they are known. */
  readonly addresses?: { readonly descriptor: string; readonly available: string; readonly used: string };
  /** Where the next start begins. */
  readonly base: number;
  /** The index words of a split ring as they stand in the guest's memory; absent where they cannot be read. */
  readonly indices?: {
    readonly available: number;
    readonly used: number;
    /** Entries that the driver made available and the device has not returned. */
    readonly outstanding: number;
  };
  /** The same for either format; on a packed ring descriptors. Absent where the ring cannot be read. */
  readonly outstanding?: number;
  /** How the device is told of new entries, and how it tells of used ones. */
  readonly kick: 'eventfd' | 'polled';
  readonly call: 'eventfd' | 'in band' | 'none';
  readonly next: NextMove;
  /** What is waited for, in words. */
  readonly why: string;
}

/** Everything that a front-end has set up on one device. */
export interface ConnectionDescription {
  readonly features: readonly FeatureDescription[];
  readonly protocolFeatures: readonly FeatureDescription[];
  /** By name, or `none`. */
  readonly status: string;
  readonly memory: readonly RegionDescription[];
  /** What packets for the guest keep to, as the front-end has set it. */
  readonly mtu: number | undefined;
  readonly log: { readonly bytes: number; readonly isActive: boolean } | undefined;
  readonly backendChannel: 'none' | 'open' | 'gone';
  readonly rings: readonly RingDescription[];
}
