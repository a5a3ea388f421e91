/** The region that outlives a back-end: made for a front-end, taken back from it, cut into rings (vhost-user "Inflight I/O tracking"). */

import { native } from '../../native/index.js';
import { ErrorCode, VirtioError } from '../errors.js';
import { inflightBytes } from '../ring/inflight.js';
import { packedInflightBytes } from '../ring/packed-inflight.js';
import type { MemoryRange } from '../spec/pci-function.js';
import { roundUp } from '../units.js';
import { OwnedFd } from '../wire/owned-fd.js';
import { isRingSize } from './ring-setup.js';
import { SharedFile } from './vhost-user-shared-file.js';

/** What GET_INFLIGHT_FD and SET_INFLIGHT_FD say of a region. */
export interface InflightFields {
  readonly mmap_size: bigint;
  readonly mmap_offset: bigint;
  readonly num_queues: number;
  readonly queue_size: number;
}

/** How many rings of how many entries there can be. */
export interface InflightLimits {
  readonly rings: number;
  readonly ringSize: number;
  /** Whether RING_PACKED was accepted. */
  readonly packed: boolean;
}

/** Each ring's part begins at a cache line of its own, as in other back-ends: the next one may be one of those. */
const RING_ALIGNMENT = 64;
const SECTION = 'Inflight I/O tracking';

/** Bytes from one ring's part to the next. */
const stride = (ringSize: number, packed: boolean): number =>
  roundUp(packed ? packedInflightBytes(ringSize) : inflightBytes(ringSize), RING_ALIGNMENT);

/**
 * A new region. It is all zeroes: its version says that nobody has used it (0).
 *
 * @returns what the answer says, and the descriptor, which is the caller's
 * @throws VirtioError PROTOCOL_VIOLATION before anything is allocated, NO_RESOURCES
 */
export function createInflight(
  { num_queues, queue_size }: InflightFields,
  limits: InflightLimits,
): { readonly fields: InflightFields; readonly fd: OwnedFd } {
  checkShape(num_queues, queue_size, limits);
  const bytes = num_queues * stride(queue_size, limits.packed);
  try {
    const fd = new OwnedFd(native.createMemory('virtio-inflight', bytes, 0));
    return { fields: { mmap_size: BigInt(bytes), mmap_offset: 0n, num_queues, queue_size }, fd };
  } catch (cause) {
    throw new VirtioError(ErrorCode.NO_RESOURCES, `there is no memory for an inflight region of ${bytes} bytes`, {
      value: bytes,
      cause,
    });
  }
}

/** A region that a front-end brought back, perhaps made by another back-end, and perhaps written by the front-end itself. */
export class InflightTable {
  /** Entries of each ring. */
  readonly ringSize: number;
  /** Whether it is for packed rings. */
  readonly packed: boolean;
  readonly #rings: number;
  readonly #file: SharedFile;

  /** @throws VirtioError PROTOCOL_VIOLATION; the descriptor stays the caller's then */
  constructor(fields: InflightFields, owner: OwnedFd, limits: InflightLimits) {
    const { mmap_size, mmap_offset, num_queues, queue_size } = fields;
    checkShape(num_queues, queue_size, limits);
    const least = num_queues * stride(queue_size, limits.packed);
    if (mmap_size < BigInt(least)) {
      throw refusal(`${mmap_size} bytes for ${num_queues} rings, which need ${least}`, mmap_size);
    }
    this.ringSize = queue_size;
    this.packed = limits.packed;
    this.#rings = num_queues;
    this.#file = SharedFile.of('an inflight region', SECTION, owner, mmap_offset, mmap_size);
  }

  /** The part of ring `index`; undefined where the region has none. */
  part(index: number): MemoryRange | undefined {
    if (index >= this.#rings) return undefined;
    const { fd, fileOffset } = this.#file.range;
    const bytes = stride(this.ringSize, this.packed);
    return { fd, fileOffset: fileOffset + index * bytes, bytes };
  }

  /** Closes the descriptor; no ring may be using its part any more. Idempotent. */
  close(): void {
    this.#file.close();
  }
}

function checkShape(rings: number, ringSize: number, limits: InflightLimits): void {
  if (rings < 1 || rings > limits.rings) throw refusal(`${rings} rings, there are 1 to ${limits.rings}`, rings);
  if (!isRingSize(ringSize, limits.packed) || ringSize > limits.ringSize) {
    const those = limits.packed ? '1' : 'a power of 2';
    throw refusal(`rings of ${ringSize} entries, only ${those} up to ${limits.ringSize} can be`, ringSize);
  }
}

const refusal = (what: string, value: unknown): VirtioError =>
  new VirtioError(ErrorCode.PROTOCOL_VIOLATION, `an inflight region of ${what}`, {
    value,
    requirement: `vhost-user "${SECTION}"`,
  });
