/**
 * The typed border of the C++ addon: every export, declared once.
 *
 * Failed system calls throw an `Error` with Node's fields (`code` like `ENOENT`, `errno`, `syscall`).
 * Sizes and offsets are bytes, numbers up to 2^53 - 1; addresses are bigint.
 * Nothing here knows of rings, protocols or policy; nothing calls back into JavaScript on the packet path.
 */

import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

/** `mapShared` flags. */
export const MapFlag = {
  /** Map for reading only: writing through the view ends the process, so hand out copies. */
  READ_ONLY: 1,
  /** Lock the pages into memory (`mlock`); fails with ENOMEM or EPERM beyond RLIMIT_MEMLOCK. */
  LOCK: 2,
  /** Touch every page now, so that a shortage is an error here and not a SIGBUS later. */
  POPULATE: 4,
} as const;

/** What a job of the copy engine does; word 4 of a job. */
export const CopyDirection = {
  /** From the guest into the pool. */
  FROM_GUEST: 0,
  /** From the pool to the guest. */
  TO_GUEST: 1,
} as const;
export type CopyDirection = (typeof CopyDirection)[keyof typeof CopyDirection];

/** How a job ended; word 5 of a job, written by the engine. */
export const CopyStatus = {
  OK: 0,
  /** Some byte of the range is in no region. Nothing was copied. */
  OUTSIDE_MEMORY: 1,
  /** The range leaves the pool. Nothing was copied. */
  OUTSIDE_POOL: 2,
  /** A page behind the range is gone (the file was truncated): zeroes were read, or the data is lost. */
  FAULT: 3,
  /** The region may not be written. Nothing was copied. */
  READ_ONLY: 4,
  /** Addresses are translated, and no window covers some byte of the range. Nothing was copied. */
  NO_TRANSLATION: 5,
  /** The window does not allow the access. Nothing was copied. */
  NO_PERMISSION: 6,
} as const;
export type CopyStatus = (typeof CopyStatus)[keyof typeof CopyStatus];

/** Words of one job in `CopyEngine.jobs` (u32 each). */
export const CopyJob = {
  GUEST_LOW: 0,
  GUEST_HIGH: 1,
  POOL_OFFSET: 2,
  LENGTH: 3,
  DIRECTION: 4,
  STATUS: 5,
  /** Of a job that `relay` delivers: the job of the sender's list that says where the packet is. Word 6 is the caller's own. */
  SOURCE: 7,
  /** Half a cache line. */
  WORDS: 8,
  /** The same as a shift. */
  WORDS_SHIFT: 3,
} as const;

/** Words of one buffer in the lists of `readTap` and `writeTap` (u32 each). */
export const TapBuffer = {
  /** Where in the pool it begins; the header comes first. */
  OFFSET: 0,
  /** Bytes of room, or of data. */
  BYTES: 1,
  /** After reading: bytes of the frame that begins here, header included. For writing: 1 where it goes on in the next. */
  FRAME: 2,
  WORDS: 4,
} as const;
/** What a frame that was refused adds to the result of `writeTap`. */
export const TAP_REFUSED = 0x1_0000;

/** What the reader of a tap does for the kernel (TUN_F_*). */
export const TapOffload = { CHECKSUM: 1, TSO4: 2, TSO6: 4, TSO_ECN: 8, USO4: 0x20, USO6: 0x40 } as const;

/** A region of another address space, mapped by this thread. */
export interface RegionOptions {
  /** File to map. Not taken over: the caller still owns and closes it. */
  readonly fd: number;
  /** Where in the file the region begins; need not be page-aligned. */
  readonly fileOffset: number;
  /** First address of the region as its owner counts (guest physical, or IOVA). */
  readonly guestAddress: bigint;
  readonly bytes: number;
  readonly readOnly?: boolean;
}

/** A translation: addresses from `iova` on stand for those from `guestAddress` on. */
export interface WindowOptions {
  readonly iova: bigint;
  /** A range may be as large as all addresses there are. */
  readonly bytes: bigint;
  readonly guestAddress: bigint;
  readonly readable: boolean;
  readonly writable: boolean;
}

/**
 * Copies between a guest's memory and a packet pool, or to another guest's, a burst a call; one instance per thread and
 * connection.
 *
 * `jobs` is the job list itself, `capacity` jobs of `CopyJob.WORDS` words, written in place by the caller.
 */
export interface CopyEngine {
  readonly jobs: Uint32Array;
  /** What `relay` of another engine of this thread calls it by; never another one's. */
  readonly number: number;
  /**
   * Maps a region into the table (fstat-checked, MAP_SHARED | MAP_NORESERVE, not dumped, SIGBUS-guarded).
   * Throws a RangeError on overflow, overlap in guest addresses, or a file that is too short; returns its number.
   */
  addRegion(region: RegionOptions): number;
  /**
   * Unmaps a region. Its views show zeroes from here on and nobody else's memory: they are not detached while that can
   * be helped, for one detach makes every typed array access of the thread dearer for ever.
   */
  removeRegion(number: number): void;
  /**
   * A view of `bytes` bytes at `guestAddress`, all inside one region (else RangeError). Blank when its region goes.
   * For rings: wrap each address once. Where addresses are translated, windows must allow reading and writing all of it
   * and lead to one piece of one region; the view outlives them.
   */
  view(guestAddress: bigint, bytes: number): ArrayBuffer;
  /** From now on the addresses of jobs and views are IOVAs, or again guest addresses. Windows are forgotten either way. */
  setTranslated(isTranslated: boolean): void;
  /**
   * Adds a window; parts of others that it overlaps are replaced. RangeError on 0 bytes and on overflow of either side;
   * Error where addresses are not translated. It may lead anywhere: that there is memory is seen when it is used.
   * Windows are a cache: past 2048 another one, at random, is forgotten, and is missing when it is next used.
   */
  addWindow(window: WindowOptions): void;
  /**
   * Forgets every window that overlaps the range, whole. A range that leaves the addresses ends with the last of them, so
   * that no invalidation is lost; RangeError on 0 bytes.
   */
  removeWindows(iova: bigint, bytes: bigint): void;
  /**
   * First IOVA from `low` and `high` on for which no window allows a copy of this direction, or -1n when the `bytes` bytes
   * are all covered (0 bytes: the address itself) or addresses are not translated. It is the byte that a status
   * NO_TRANSLATION or NO_PERMISSION is about. IOVAs past the last one there is are not missing but OUTSIDE_MEMORY.
   */
  missing(low: number, high: number, bytes: number, direction: CopyDirection): bigint;
  /**
   * Maps a dirty log (one bit a 4096-byte page of guest addresses, vhost-user "Migration"): each page a job writes is
   * marked in it with an atomic or, after the bytes. Pages beyond the log are not marked, but counted. RangeError when the
   * file is too short, system errors of mmap; the log before, which it replaces, stays then. The fd stays the caller's.
   */
  setLog(log: { readonly fd: number; readonly fileOffset: number; readonly bytes: number }): void;
  /** Unmaps the log. Idempotent. */
  clearLog(): void;
  /**
   * Marks the pages of a range of guest addresses, in the log's own terms; nothing without a log. To be called after the
   * range was written. Never throws, never allocates.
   */
  markDirty(low: number, high: number, bytes: number): void;
  /** Pages that were to be marked and lie beyond the log, since this engine is there. */
  skippedPages(): number;
  /** The pool that jobs copy from and to; must stay mapped until `close`. */
  setPool(pool: ArrayBuffer): void;
  /** Runs jobs 0 to `count - 1`; returns how many did not end OK. Never throws, never allocates. */
  run(count: number): number;
  /**
   * As `run`, but copies the first `most` bytes of a job at most; the whole range is checked all the same. `SOURCE` of each
   * job becomes the number of the first of those just before it that brought the same bytes, or its own: it may be its own
   * though bytes are the same, never the other way round.
   */
  peek(count: number, most: number): number;
  /** As `run`; of what comes from the guest the first `skip` bytes need not be copied, but are checked with the rest. */
  fetch(count: number, skip: number): number;
  /** As `run` for jobs TO_GUEST: the header (`setHeader`) takes the place of the first bytes of each. */
  deliver(count: number): number;
  /** What `deliver` and `relay` put before each packet for this engine's guest: up to 32 bytes, none at first. */
  setHeader(header: readonly number[]): void;
  /**
   * Copies packets of this engine's guest, which were peeked at, to that of the open engine `to` of this thread; returns
   * how many arrived.
   *
   * Jobs 0 to `count - 1` of that engine's list say where each packet goes (TO_GUEST), what room there is, and by `SOURCE`
   * which job of this list (FROM_GUEST) it is in. The other engine's header takes the place of the first `skip` bytes; the
   * `peeked` bytes behind them come from this engine's pool, where `POOL_OFFSET` and `skip` say, so that what arrives is what
   * was looked at; the rest comes from the guest. At the first packet that cannot arrive that is the end, and both its
   * jobs get a status: OK for both where only the room is too small for it. Never allocates; a RangeError when there is no
   * such engine.
   */
  relay(to: number, count: number, skip: number, peeked: number): number;
  /** Pages of any region, or of the log, that had to be replaced by zeroes because the file behind them is gone. */
  faults(): number;
  /** Unmaps all regions, as `removeRegion` does, and the log. Idempotent. */
  close(): void;
}

/** Bytes and descriptors that arrived together; `fds` are the receiver's to close. */
export interface Received {
  /** Bytes written into the buffer; 0 at end of stream. */
  readonly bytes: number;
  /** Descriptors, close-on-exec. */
  readonly fds: number[];
  /** The kernel dropped descriptors (MSG_CTRUNC); those that did arrive are in `fds`. */
  readonly truncated: boolean;
}

export interface Native {
  // Memory
  /** A new memfd of `bytes` bytes; `hugePageBytes` 0, 2 MiB or 1 GiB. Sealed against shrinking. ENOMEM or ENOSPC without hugepages. */
  createMemory(name: string, bytes: number, hugePageBytes: number): number;
  /** Maps part of a file, MAP_SHARED; each thread maps for itself. `offset` must be a multiple of the page size. */
  mapShared(fd: number, offset: number, bytes: number, flags: number): ArrayBuffer;
  /** Detaches the buffer in this thread, then unmaps it. Idempotent. */
  unmapShared(buffer: ArrayBuffer): void;
  /** The address of a mapping in this process. */
  addressOf(buffer: ArrayBuffer): bigint;

  // Descriptors
  closeFd(fd: number): void;
  duplicateFd(fd: number): number;
  /** What the descriptor is: `fstat` type, size, and memfd seals (-1 where it has none). */
  inspectFd(fd: number): {
    kind: 'file' | 'directory' | 'socket' | 'fifo' | 'character' | 'block' | 'other';
    bytes: number;
    seals: number;
  };

  // Unix stream sockets, non-blocking, close-on-exec
  /** Binds and listens. ENAMETOOLONG beyond 107 bytes, EADDRINUSE when the path exists. */
  listenUnix(path: string, backlog: number): number;
  /** The next waiting connection, or -1. */
  acceptUnix(fd: number): number;
  /** Connects (a unix socket connects at once or fails: ENOENT, ECONNREFUSED, EACCES, ENOTSOCK, EAGAIN, …). */
  connectUnix(path: string): number;
  socketPair(): [number, number];
  /** Reads what is there, up to 253 descriptors with it; `undefined` when nothing is. */
  receive(fd: number, into: Uint8Array): Received | undefined;
  /** Sends bytes, with descriptors on the first byte; returns the bytes taken, 0 when the socket is full. Never SIGPIPE. */
  send(fd: number, bytes: Uint8Array, fds: readonly number[]): number;

  // Events
  /** A new eventfd (non-blocking, close-on-exec) with the given count. */
  createEventFd(initial: number): number;
  /** Adds one. False when the descriptor is full, closed or not writable: never blocks, never throws. */
  signalEventFd(fd: number): boolean;
  /** Takes the count and clears it: 0n when it was not set. */
  drainEventFd(fd: number): bigint;
  /** Calls `onReady(events)` on the event loop while the descriptor is ready; `events` of `PollEvent`. */
  pollFd(fd: number, events: number, onReady: (events: number, status: number) => void): FdPoll;

  /**
   * Blocks the calling thread until one of these (256 at most) can be read, for `timeoutMs` at most; negative numbers are
   * passed over. Whether one can: a signal that comes in between ends the wait too. For threads without an event loop.
   */
  waitReadable(fds: Int32Array, timeoutMs: number): boolean;

  // MMIO, by the register's width; offsets are checked against the mapping and for alignment
  read8(map: ArrayBuffer, offset: number): number;
  read16(map: ArrayBuffer, offset: number): number;
  read32(map: ArrayBuffer, offset: number): number;
  write8(map: ArrayBuffer, offset: number, value: number): void;
  write16(map: ArrayBuffer, offset: number, value: number): void;
  write32(map: ArrayBuffer, offset: number, value: number): void;

  // Taps
  /**
   * Opens a tap interface, and makes it where it is not there: then it goes with the descriptor. Every frame has a
   * virtio-net header of `headerBytes` before it; `offloads` of `TapOffload` says what the reader does for the kernel.
   * Non-blocking, close-on-exec. EPERM without CAP_NET_ADMIN, EBUSY when somebody has it, EINVAL when it is no tap.
   */
  openTap(name: string, headerBytes: number, offloads: number): { name: string; fd: number };
  setTapOffloads(fd: number, offloads: number): void;
  /**
   * Reads frames into buffers 0 to `count - 1` of the list, one a buffer; returns how many. One that is longer than its
   * buffer goes on in the `spares` buffers that follow these in the list (63 at most), and is the last. EBADFD when the
   * interface is gone.
   */
  readTap(fd: number, pool: ArrayBuffer, buffers: Uint32Array, count: number, spares: number): number;
  /**
   * Writes the frames in buffers 0 to `count - 1`. Returns how many buffers it dealt with, fewer where the interface takes
   * no more now, plus `TAP_REFUSED` times the frames that were refused and are lost.
   */
  writeTap(fd: number, pool: ArrayBuffer, buffers: Uint32Array, count: number): number;

  // Threads
  /** Pins the calling thread to these processors. EINVAL when one does not exist. */
  setAffinity(cpus: readonly number[]): void;
  /** Processors the calling thread may run on. */
  affinity(): number[];
  /** Gives the processor to whoever waits for it. */
  yieldThread(): void;
  /** Waits so many nanoseconds, a millisecond at most, without giving the processor to another thread. */
  pauseThread(nanoseconds: number): void;
  /** Soft limit of RLIMIT_MEMLOCK in bytes, Infinity when unlimited. */
  memlockLimit(): number;

  CopyEngine: new (jobs: number) => CopyEngine;
}

/** `pollFd` events, as libuv counts them. */
export const PollEvent = { READABLE: 1, WRITABLE: 2, DISCONNECT: 4 } as const;

/** A descriptor watched on the event loop; the descriptor stays the caller's. */
export interface FdPoll {
  /** Changes what is waited for. */
  update(events: number): void;
  /** Whether the poll keeps the process alive (it does at first). */
  ref(): void;
  unref(): void;
  /** Stops; no call of `onReady` follows. Idempotent. Must come before the descriptor is closed. */
  close(): void;
}

/** The folder that holds binding.gyp, from the sources and from dist/native alike. */
function addonFolder(): string {
  const here = dirname(fileURLToPath(import.meta.url));
  return here.endsWith(join('dist', 'native')) ? join(here, '..', '..', 'native') : here;
}

export const native: Native = createRequire(import.meta.url)('node-gyp-build')(addonFolder());
