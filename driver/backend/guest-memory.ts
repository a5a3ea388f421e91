/** One guest's memory on a poll thread: its regions, its translations, the log of what is written. */

import { CopyDirection, type CopyEngine, native } from '../../native/index.js';
import { ErrorCode, VirtioError } from '../errors.js';
import type { PacketPool } from '../memory/packet-pool.js';
import type { MemoryRange } from '../spec/pci-function.js';
import { ringParts } from '../spec/ring.js';
import type { GuestRegion, IotlbEntry, RingSetup } from './device-model.js';

/** One past the last address there is. */
const ADDRESSES_END = 1n << 64n;
/** Translations remembered for the log: as many as the engine keeps. */
const MOST_TRANSLATIONS = 2048;

export class GuestMemory {
  readonly engine: CopyEngine;
  readonly #regions: number[] = [];
  /** The newest last; an older one that overlaps a newer one is hidden by it. */
  readonly #translations: IotlbEntry[] = [];
  #isTranslated = false;
  #isLogged = false;

  /** @param jobs how many the engine's list holds */
  constructor(pool: PacketPool, jobs: number) {
    this.engine = new native.CopyEngine(jobs);
    this.engine.setPool(pool.memory.buffer);
  }

  /** Whether addresses are IOVAs. */
  get isTranslated(): boolean {
    return this.#isTranslated;
  }
  /** Whether there is a dirty log. */
  get isLogged(): boolean {
    return this.#isLogged;
  }

  /** Replaces the regions. Nothing of the old ones may be in use. */
  setRegions(regions: readonly GuestRegion[]): void {
    for (const region of this.#regions.splice(0)) this.engine.removeRegion(region);
    for (const { fd, fileOffset, guestAddress, bytes } of regions) {
      this.#regions.push(this.engine.addRegion({ fd, fileOffset, guestAddress, bytes }));
    }
  }

  setTranslated(isTranslated: boolean): void {
    if (isTranslated === this.#isTranslated) return;
    this.engine.setTranslated(isTranslated);
    this.#isTranslated = isTranslated;
    this.#translations.length = 0;
  }

  /** @throws VirtioError INVALID_ARGUMENT for a range that is none, WRONG_STATE without ACCESS_PLATFORM */
  addTranslation(entry: IotlbEntry): void {
    this.#checkTranslated();
    const { iova, bytes, guestAddress } = entry;
    const isRange = (address: bigint): boolean => address >= 0n && bytes > 0n && address + bytes <= ADDRESSES_END;
    if (!isRange(iova) || !isRange(guestAddress)) throw badRange(iova, bytes);
    this.engine.addWindow(entry);
    this.#translations.push(entry);
    if (this.#translations.length > MOST_TRANSLATIONS) this.#translations.shift();
  }

  /** Forgets translations. @throws VirtioError as `addTranslation` */
  removeTranslations(iova: bigint, bytes: bigint): void {
    this.#checkTranslated();
    // A range that leaves the addresses ends with the last of them: no invalidation is lost.
    if (iova < 0n || bytes <= 0n) throw badRange(iova, bytes);
    this.engine.removeWindows(iova, bytes);
    const kept = this.#translations.filter((entry) => !overlaps(entry.iova, entry.bytes, iova, bytes));
    this.#translations.splice(0, this.#translations.length, ...kept);
  }

  /** The first address of a range that has no translation, or undefined. */
  missing(address: bigint, bytes: number, direction: CopyDirection): bigint | undefined {
    if (!this.#isTranslated) return undefined;
    const iova = this.engine.missing(Number(address & 0xffff_ffffn), Number(address >> 32n), bytes, direction);
    return iova < 0n ? undefined : iova;
  }

  /** The first address of a ring, or of its log, without a translation, and what it is wanted for; or undefined. */
  missingOfRing(
    setup: RingSetup,
    packed: boolean,
  ): { readonly iova: bigint; readonly direction: CopyDirection } | undefined {
    for (const { address, bytes, direction } of partsOf(setup, packed)) {
      const iova = this.missing(address, bytes, direction);
      if (iova !== undefined) return { iova, direction };
    }
    const { desc, used, usedLog } = setup;
    // The engine may know a translation that is forgotten here: without it nothing of the ring would be logged.
    const written = packed ? [used, desc] : [used];
    if (!this.#isLogged || usedLog !== used) return undefined;
    const iova = written.find((address) => this.logAddress(address) === undefined);
    return iova === undefined ? undefined : { iova, direction: CopyDirection.TO_GUEST };
  }

  /** Where the log counts an address: what stands for it in the guest where addresses are translated. */
  logAddress(address: bigint | undefined): bigint | undefined {
    if (address === undefined || !this.#isTranslated) return address;
    const entry = this.#translations.findLast(({ iova, bytes }) => address >= iova && address < iova + bytes);
    return entry === undefined ? undefined : entry.guestAddress + (address - entry.iova);
  }

  setLog(log: MemoryRange | undefined): void {
    if (log === undefined) {
      this.engine.clearLog();
      this.#isLogged = false;
      return;
    }
    const { fd, fileOffset, bytes } = log;
    this.engine.setLog({ fd, fileOffset, bytes });
    this.#isLogged = true;
  }

  /** Forgets regions, translations and log. */
  reset(): void {
    this.setRegions([]);
    this.setTranslated(false);
    if (this.#isLogged) this.setLog(undefined);
  }

  close(): void {
    this.engine.close();
  }

  #checkTranslated(): void {
    if (this.#isTranslated) return;
    throw new VirtioError(ErrorCode.WRONG_STATE, 'addresses are not translated: ACCESS_PLATFORM was not accepted', {
      requirement: 'vhost-user "IOMMU support"',
    });
  }
}

/** The parts of a ring, and what the device does to them: a packed ring's descriptors are read and written. */
const partsOf = ({ size, desc, avail, used }: RingSetup, packed: boolean) => {
  const parts = ringParts(size, packed);
  const { FROM_GUEST, TO_GUEST } = CopyDirection;
  return [
    { address: desc, bytes: parts.desc.bytes, direction: FROM_GUEST },
    ...(packed ? [{ address: desc, bytes: parts.desc.bytes, direction: TO_GUEST }] : []),
    { address: avail, bytes: parts.driver.bytes, direction: FROM_GUEST },
    { address: used, bytes: parts.device.bytes, direction: TO_GUEST },
  ] as const;
};

/** Whether a part of the ring is in a range of addresses. */
export const touchesRing = (setup: RingSetup, packed: boolean, iova: bigint, bytes: bigint): boolean =>
  partsOf(setup, packed).some((part) => overlaps(part.address, BigInt(part.bytes), iova, bytes));

const overlaps = (a: bigint, aBytes: bigint, b: bigint, bBytes: bigint): boolean => a < b + bBytes && b < a + aBytes;

const badRange = (iova: bigint, bytes: bigint): VirtioError =>
  new VirtioError(ErrorCode.INVALID_ARGUMENT, `0x${iova.toString(16)} and ${bytes} bytes are no range of addresses`, {
    value: iova,
    requirement: 'vhost-user "An IOTLB message"',
  });
