/** The front-end's IOMMU: what it says of translations, and what has been asked of it (vhost-user "IOMMU support"). */

import { ErrorCode, VirtioError } from '../errors.js';
import { caps } from '../spec/caps.js';
import { IotlbPermission, IotlbType } from '../spec/vhost-user.js';
import type { IotlbEntry } from './device-model.js';
import type { MemoryTable } from './vhost-user-memory.js';

/** The fields of an IOTLB message, at full width. */
export interface IotlbFields {
  readonly iova: bigint;
  readonly size: bigint;
  readonly user_address: bigint;
  readonly permissions: number;
  readonly type: number;
}

const ADDRESSES_END = 1n << 64n;
/** Every address there is. */
export const ALL_ADDRESSES = { iova: 0n, bytes: ADDRESSES_END } as const;

/** What a message changes. */
export type IotlbChange =
  | { readonly kind: 'update'; readonly entries: readonly IotlbEntry[] }
  | { readonly kind: 'invalidate'; readonly iova: bigint; readonly bytes: bigint };

/**
 * What an IOTLB message of a front-end asks for: an update in the terms of guest addresses, one entry for each region that
 * its range is in, or an invalidation.
 *
 * @throws VirtioError PROTOCOL_VIOLATION
 */
export function readIotlb(fields: IotlbFields, memory: MemoryTable): IotlbChange {
  const { iova, size, user_address, permissions, type } = fields;
  if (type !== IotlbType.UPDATE && type !== IotlbType.INVALIDATE) {
    throw refusal(`an IOTLB message of type ${type}, which a front-end does not send`, type);
  }
  if (size === 0n) throw refusal('an IOTLB message about 0 bytes', size);
  if (type === IotlbType.INVALIDATE) {
    // Never refused for its end: a translation that stays by mistake leads to memory that is somebody else's now.
    const most = ADDRESSES_END - iova;
    return { kind: 'invalidate', iova, bytes: size < most ? size : most };
  }
  if (iova + size > ADDRESSES_END) throw refusal('a translation whose IOVA and size overflow', iova);
  if (permissions < IotlbPermission.READ || permissions > IotlbPermission.READ_WRITE) {
    throw refusal(`a translation with permissions ${permissions}`, permissions);
  }
  const pieces = memory.pieces(user_address, size);
  if (pieces === undefined) throw refusal('a translation into memory that is not shared', user_address);
  let at = iova;
  const entries = pieces.map(({ guestAddress, bytes }) => {
    const entry: IotlbEntry = {
      iova: at,
      bytes,
      guestAddress,
      readable: (permissions & IotlbPermission.READ) !== 0,
      writable: (permissions & IotlbPermission.WRITE) !== 0,
    };
    at += bytes;
    return entry;
  });
  return { kind: 'update', entries };
}

interface Miss {
  readonly iova: bigint;
  readonly permissions: number;
  /** `performance.now()` of the last time it was sent. */
  sentAt: number;
  /** Times it was sent since `since`. */
  count: number;
  since: number;
}

/** Bytes that one miss is about: translations are pages at least. */
const PAGE_BITS = 12n;
/** How often is looked for misses to ask again for, and after how long. */
const TICK_MS = 200;
const AGAIN_MS = 1000;
/** How often in that time the same may be asked where every answer left it missing. */
const MOST_TIMES = 16;
/** Pages of a range that are looked up one by one. */
const FEW_PAGES = 64n;
const PERMISSIONS = [IotlbPermission.READ, IotlbPermission.WRITE, IotlbPermission.READ_WRITE] as const;

const keyOf = (page: bigint, permissions: number): string => `${page} ${permissions}`;

/**
 * Translations that were asked for. Each is asked for once, and again after a while: the guest may have mapped it since, and
 * no front-end says so by itself.
 */
export class IotlbMisses {
  /** Both by page and permissions, the oldest first. */
  readonly #outstanding = new Map<string, Miss>();
  /** Those that were answered lately. */
  readonly #answered = new Map<string, Miss>();
  readonly #send: (iova: bigint, permissions: number) => void;
  #timer: NodeJS.Timeout | undefined;

  constructor(send: (iova: bigint, permissions: number) => void) {
    this.#send = send;
  }

  /** Asks for the translation of an address, unless it is on its way. */
  ask(iova: bigint, permissions: number): void {
    const key = keyOf(iova >> PAGE_BITS, permissions);
    if (this.#outstanding.has(key)) return;
    const now = performance.now();
    const miss = this.#answered.get(key) ?? { iova, permissions, sentAt: now, count: 0, since: now };
    this.#answered.delete(key);
    if (now - miss.since >= AGAIN_MS) [miss.count, miss.since] = [0, now];
    putLast(this.#outstanding, key, miss);
    // An answer that never is what is needed must not keep both sides busy: that one waits for the timer.
    if (++miss.count <= MOST_TIMES) this.#sendNow(miss, now);
    this.#timer ??= setTimeout(() => this.#tick(), TICK_MS).unref();
  }

  /** A translation has come: what it answers is not asked for again by itself. */
  answered(iova: bigint, bytes: bigint): void {
    for (const [key, miss] of touched(this.#outstanding, iova, bytes)) {
      this.#outstanding.delete(key);
      putLast(this.#answered, key, miss);
    }
  }

  /** Translations are gone: whoever misses them asks anew. */
  forget(iova: bigint, bytes: bigint): void {
    for (const misses of [this.#outstanding, this.#answered]) {
      for (const [key] of touched(misses, iova, bytes)) misses.delete(key);
    }
  }

  /** Sends all that has no answer, as on a new channel. */
  sendAll(): void {
    const now = performance.now();
    for (const miss of this.#outstanding.values()) this.#sendNow(miss, now);
  }

  /** Asks for nothing any more. Idempotent. */
  close(): void {
    clearTimeout(this.#timer);
    this.#timer = undefined;
    this.#outstanding.clear();
    this.#answered.clear();
  }

  #tick(): void {
    this.#timer = undefined;
    const now = performance.now();
    for (const miss of this.#outstanding.values()) if (now - miss.sentAt >= AGAIN_MS) this.#sendNow(miss, now);
    for (const [key, miss] of this.#answered) if (now - miss.since >= AGAIN_MS) this.#answered.delete(key);
    if (this.#outstanding.size + this.#answered.size > 0) {
      this.#timer = setTimeout(() => this.#tick(), TICK_MS).unref();
    }
  }

  #sendNow(miss: Miss, now: number): void {
    miss.sentAt = now;
    this.#send(miss.iova, miss.permissions);
  }
}

/** Adds one behind all others; where there are too many, the oldest goes, and whoever needs it has to ask again. */
function putLast(misses: Map<string, Miss>, key: string, miss: Miss): void {
  if (misses.size >= caps.iotlbMisses) {
    for (const oldest of misses.keys()) {
      misses.delete(oldest);
      break;
    }
  }
  misses.set(key, miss);
}

/** Those whose page is touched by a range. */
function touched(misses: ReadonlyMap<string, Miss>, start: bigint, bytes: bigint): [string, Miss][] {
  const first = start >> PAGE_BITS;
  const last = (start + bytes - 1n) >> PAGE_BITS;
  if (last - first >= FEW_PAGES) {
    return [...misses].filter(([, { iova }]) => iova >> PAGE_BITS >= first && iova >> PAGE_BITS <= last);
  }
  const found: [string, Miss][] = [];
  for (let page = first; page <= last; page++) {
    for (const permissions of PERMISSIONS) {
      const key = keyOf(page, permissions);
      const miss = misses.get(key);
      if (miss !== undefined) found.push([key, miss]);
    }
  }
  return found;
}

const refusal = (what: string, value: unknown): VirtioError =>
  new VirtioError(ErrorCode.PROTOCOL_VIOLATION, `the front-end sends ${what}`, {
    value,
    requirement: 'vhost-user "An IOTLB message"',
  });
