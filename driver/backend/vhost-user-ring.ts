/** What a front-end has said about one ring, and what it takes to start it (vhost-user "Ring states"). */

import { ErrorCode, VirtioError } from '../errors.js';
import { Feature, type FeatureSet } from '../spec/features.js';
import { le16 } from '../spec/layout.js';
import type { MemoryRange } from '../spec/pci-function.js';
import { type RingPart, ringParts } from '../spec/ring.js';
import { closeAll, type OwnedFd } from '../wire/owned-fd.js';
import type { RingSetup } from './device-model.js';
import type { MemoryTable } from './vhost-user-memory.js';

/** Addresses of the three parts, as the front-end counts. */
export interface RingAddresses {
  readonly descriptor: bigint;
  readonly available: bigint;
  readonly used: bigint;
  /** Where the dirty log counts the used ring, or undefined: its writes are not logged. */
  readonly usedLog?: bigint | undefined;
}

/** What a ring is started with beside its own set-up. */
export interface RingExtras {
  readonly inflight: MemoryRange | undefined;
  /** Calls go as messages where there is no descriptor for them. */
  readonly callsInBand: boolean;
}

export type RingFd = 'kick' | 'call' | 'err';

/** A ring is stopped or running, and enabled or disabled, the one independent of the other. */
export class VhostUserRing {
  readonly index: number;
  /** Entries; 0 until SET_VRING_NUM. */
  size = 0;
  /** Next available entry to look at, while the ring stands still. */
  base = 0;
  addresses: RingAddresses | undefined;
  isEnabled = false;
  /** Whether the device runs it. */
  isRunning = false;
  /** Whether only a translation keeps it from running. */
  isWaiting = false;
  /** Why the device stopped it, if it did. */
  broken: string | undefined;
  /** Whether its start was told of: a short stop on the way to another memory table or descriptor is not. */
  isAnnounced = false;
  /** Whether it was kicked off: by a kick descriptor, or by the word that none will come. */
  isKicked = false;
  readonly #fds: Record<RingFd, OwnedFd | undefined> = { kick: undefined, call: undefined, err: undefined };

  constructor(index: number) {
    this.index = index;
  }

  /** Puts a descriptor, or none, in the place of another, which is closed. The device must not be using that one. */
  setFd(which: RingFd, fd: OwnedFd | undefined): void {
    this.#fds[which]?.close();
    this.#fds[which] = fd;
  }

  /** What it still needs before it can start, of what the front-end says about it. */
  get missing(): string | undefined {
    if (this.size === 0) return 'its size';
    if (this.addresses === undefined) return 'its addresses';
    return this.isKicked ? undefined : 'a kick descriptor';
  }

  /** Addresses must be multiples of 16, 2 and 4, packed 16, 4 and 4 (virtio 1.2 §2.7, §2.8). @throws VirtioError PROTOCOL_VIOLATION */
  checkAlignment(addresses: RingAddresses, packed: boolean): void {
    const parts = ringParts(1, packed);
    for (const [what, address, part] of pairUp(addresses, parts)) {
      if (address % BigInt(part.alignment) !== 0n) {
        throw this.#refusal(`has its ${what} at 0x${address.toString(16)}, no multiple of ${part.alignment}`, address);
      }
    }
  }

  /**
   * Everything the device needs, in guest addresses; where ACCESS_PLATFORM was accepted, in IOVAs, which nobody here can
   * look at. Size and addresses must be known.
   *
   * @throws VirtioError PROTOCOL_VIOLATION when a part is not, from its first byte to its last, inside one region
   */
  resolve(memory: MemoryTable, features: FeatureSet, extras: RingExtras): RingSetup {
    const { addresses } = this;
    if (addresses === undefined || this.size === 0) throw this.#refusal('has no size or no addresses', this.index);
    const packed = features.has(Feature.RING_PACKED);
    const parts = ringParts(this.size, packed);
    const isTranslated = features.has(Feature.ACCESS_PLATFORM);
    // The event words of a split ring are there, and touched, with EVENT_IDX only.
    const eventBytes = packed || features.has(Feature.EVENT_IDX) ? 0 : le16.bytes;
    const place = ([what, address, part]: PlacedPart): bigint => {
      const bytes = part === parts.desc ? part.bytes : part.bytes - eventBytes;
      if (isTranslated && address + BigInt(bytes) <= ADDRESSES_END) return address;
      const guestAddress = isTranslated ? undefined : memory.translate(address, bytes);
      if (guestAddress !== undefined) return guestAddress;
      throw this.#refusal(
        `has its ${what}, ${bytes} bytes at 0x${address.toString(16)}, outside shared memory`,
        address,
      );
    };
    const [desc, avail, used] = pairUp(addresses, parts);
    const callFd = this.#fds.call?.fd;
    return {
      size: this.size,
      desc: place(desc),
      avail: place(avail),
      used: place(used),
      base: this.base,
      kickFd: this.#fds.kick?.fd,
      callFd,
      errFd: this.#fds.err?.fd,
      ...(addresses.usedLog !== undefined && { usedLog: addresses.usedLog }),
      ...(extras.inflight !== undefined && { inflight: extras.inflight }),
      ...(extras.callsInBand && callFd === undefined && { callsInBand: true }),
    };
  }

  hasFd(which: RingFd): boolean {
    return this.#fds[which] !== undefined;
  }

  /** Forgets what was set up, as at the very beginning, but the descriptors that tell the front-end things. */
  forget(): void {
    this.unkick();
    this.size = 0;
    this.base = 0;
    this.addresses = undefined;
    this.isWaiting = false;
    this.broken = undefined;
  }

  /** Forgets the kick: the ring starts again only with a new one. */
  unkick(): void {
    this.setFd('kick', undefined);
    this.isKicked = false;
  }

  /** Closes its descriptors; the device must not be using them any more. */
  close(): void {
    closeAll(Object.values(this.#fds));
    this.#fds.kick = this.#fds.call = this.#fds.err = undefined;
  }

  #refusal(message: string, value: unknown): VirtioError {
    return new VirtioError(ErrorCode.PROTOCOL_VIOLATION, `ring ${this.index} ${message}`, {
      value,
      requirement: 'vhost-user "A vring address description", virtio 1.2 §2.7',
    });
  }
}

const ADDRESSES_END = 1n << 64n;

type PlacedPart = readonly [what: string, address: bigint, part: RingPart];

const pairUp = (
  addresses: RingAddresses,
  parts: { readonly desc: RingPart; readonly driver: RingPart; readonly device: RingPart },
): readonly [PlacedPart, PlacedPart, PlacedPart] => [
  ['descriptor table', addresses.descriptor, parts.desc],
  ['available ring', addresses.available, parts.driver],
  ['used ring', addresses.used, parts.device],
];
