/** What the driver's ends of both ring formats are made with, and what they keep of chains in flight. */

import type { PacketPool } from '../memory/packet-pool.js';

/** Tables for indirect descriptors in DMA memory: table `i` belongs to descriptor `i` (virtio 1.2 §2.7.5.3, §2.8.7). */
export interface IndirectTables {
  /** The tables, `entries` descriptors each. */
  readonly words: Uint32Array;
  readonly entries: number;
  /** The device's address of each table: low word at `2 * i`, high word at `2 * i + 1`. */
  readonly iovas: Uint32Array;
}

export interface DriverRingOptions {
  readonly pool: PacketPool;
  /** Bytes of header before each packet's data. */
  readonly headerBytes: number;
  /** Longest packet that may be posted, header not counted. */
  readonly maxFrameBytes: number;
  /** EVENT_IDX was accepted. */
  readonly eventIndex: boolean;
  /** IN_ORDER was accepted: chains come back in the order in which they went, and one used entry may stand for a batch. */
  readonly inOrder?: boolean | undefined;
  /**
   * Writes the header of a packet that has flags at an offset of the pool's bytes; returns false, whatever it has written,
   * where something must be done to the packet first. Without it flags are not looked at.
   */
  readonly writeHeader?: ((handle: number, start: number) => boolean) | undefined;
  /** What `num_buffers` holds in the header of a posted packet stays. */
  readonly keepNumBuffers?: boolean | undefined;
  /** INDIRECT_DESC was accepted, and these tables are for it. */
  readonly indirect?: IndirectTables | undefined;
  /**
   * Where both ends stand. Split: both indices in memory, 0, the default, on a cleared ring. Packed: offset and wrap
   * counter, as in an event suppression structure; the default is 0 and 1.
   */
  readonly base?: number | undefined;
  /** What `handOver` of another end returned, which stood over the same memory with the same options. */
  readonly handedOver?: DriverRingState | undefined;
}

/** What the ring says of itself, and its parts write. */
export interface RingCounts {
  free: number;
  inFlight: number;
  broken: string | undefined;
}

/** All that an end knows of its ring, as plain data: for another thread, which goes on with it. */
export interface DriverRingState {
  readonly broken: string | undefined;
  /** The words of the chains in flight, by id. */
  readonly chains: Uint32Array;
  /** The rest, as the format has it. */
  readonly tables: readonly Uint16Array[];
  readonly numbers: readonly number[];
}

/** The part of it that is about the order of chains, with IN_ORDER. */
export interface OrderOnTheMove {
  stand(): number[];
  goOn(numbers: readonly number[]): void;
}

/** Why an end moves nothing that was handed over. */
export const HANDED_OVER = 'another thread has it';

/** The length `reclaim` gives for a chain whose device claims to have written more than it could. */
export const OVERLONG = 0xffff_ffff;

/** No id: ids are below 32768. */
export const ID_UNKNOWN = 0xffff;

/** Words of the chains in flight: handle plus one, and what kind of chain it is. */
export const HANDLE_MASK = 0x3fff_ffff;
export const WRITABLE = 0x4000_0000;
/** More than one descriptor, or an indirect table. */
export const CHAINED = 0x8000_0000;

/** Takes every chain in flight out of the words of them; returns how many there were. */
export function takeAllChains(chains: Uint32Array, out: Uint32Array): number {
  let count = 0;
  for (let id = 0; id < chains.length; id++) {
    const chain = chains[id]!;
    if (chain === 0) continue;
    chains[id] = 0;
    out[count++] = (chain & HANDLE_MASK) - 1;
  }
  return count;
}

/** The names above that packet paths use, for the scope of specialized code. */
export const chainWords = { OVERLONG, ID_UNKNOWN, HANDLE_MASK, WRITABLE, CHAINED, takeAllChains, HANDED_OVER } as const;
