/** Live migration between two QEMU processes, and whether the guest's memory is the same after it. */

import { closeSync, fstatSync, openSync, readdirSync, readlinkSync, readSync, writeSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';

import type { Guest } from './guest-machine.js';
import { timeOf } from './guest-qmp.js';
import { MARK, PIECE_BYTES } from './guest-traffic.js';

/** Generous: other jobs may have the processors. */
const MIGRATION_MS = 120_000;
const POLL_MS = 50;
/** Slow enough that the guest's memory takes seconds, with traffic all the while. */
const SLOW_BYTES_PER_SECOND = 24 << 20;
const QUICK_BYTES_PER_SECOND = 1 << 30;
/** Times that the log has been looked at before the end may come. */
const LEAST_SYNCS = 3;
const DOWNTIME_MS = 300;
/** Where a busy machine writes pages as quickly as it sends them, it may stand still for longer after that time. */
const PATIENCE_MS = 40_000;
const PATIENT_DOWNTIME_MS = 5000;

interface Progress {
  readonly status: string;
  readonly downtime?: number;
  readonly 'error-desc'?: string;
  readonly ram?: { readonly 'dirty-sync-count': number; readonly transferred: number };
}

export interface Migration {
  /** When the guest stopped at the source, milliseconds since 1970. */
  readonly stoppedAt: number;
  /** How long it stood still, as QEMU says. */
  readonly downtimeMs: number;
  /** Times that all dirty logs were looked at. */
  readonly syncs: number;
  /** Bytes of memory that were sent. */
  readonly transferred: number;
}

/**
 * Moves a guest to a machine that was made with `incoming`, where it stands still: `cont` has it go on. First slowly, in
 * several rounds over the memory, then to its end.
 *
 * @throws Error with what both machines said when it fails
 */
export async function migrate(from: Guest, to: Guest, uri: string): Promise<Migration> {
  const [began, stopped] = [Date.now(), from.qmp.next('STOP', MIGRATION_MS)];
  stopped.catch(() => {});
  const set = (parameters: object): Promise<unknown> => from.qmp.execute('migrate-set-parameters', { ...parameters });
  await set({ 'max-bandwidth': SLOW_BYTES_PER_SECOND, 'downtime-limit': 1 });
  await from.qmp.execute('migrate', { uri });
  let isQuick = false;
  let isPatient = false;
  for (;;) {
    const progress = await from.qmp.execute<Progress>('query-migrate');
    const { status, downtime = 0, ram } = progress;
    const syncs = ram?.['dirty-sync-count'] ?? 0;
    if (status === 'completed') {
      return { stoppedAt: timeOf(await stopped), downtimeMs: downtime, syncs, transferred: ram?.transferred ?? 0 };
    }
    if (status === 'failed' || status === 'cancelled' || Date.now() - began > MIGRATION_MS) {
      throw new Error(`migration: ${JSON.stringify(progress)}\nfrom: ${from.console}\nto: ${to.console}`);
    }
    if (!isQuick && syncs >= LEAST_SYNCS) {
      isQuick = true;
      await set({ 'max-bandwidth': QUICK_BYTES_PER_SECOND, 'downtime-limit': DOWNTIME_MS });
    } else if (!isPatient && Date.now() - began > PATIENCE_MS) {
      isPatient = true;
      await set({ 'max-bandwidth': QUICK_BYTES_PER_SECOND, 'downtime-limit': PATIENT_DOWNTIME_MS });
    }
    await sleep(POLL_MS);
  }
}

const PAGE_BYTES = 4096;
const CHUNK_BYTES = 1 << 20;
const MEMORY_FILE = /memory-backend-memfd/;

/** A machine's memory: the file that QEMU shares with the back-end. Below 2 GiB places in it are guest addresses. */
function openMemory({ pid }: Guest): number {
  const folder = `/proc/${pid}/fd`;
  for (const fd of readdirSync(folder)) {
    const path = `${folder}/${fd}`;
    if (MEMORY_FILE.test(readlinkSync(path))) return openSync(path, 'r+');
  }
  throw new Error(`QEMU ${pid} has no memory to share`);
}

/** Memory that only the device writes. */
export interface DeviceRange {
  readonly what: string;
  readonly start: number;
  readonly bytes: number;
}

export interface Comparison {
  /** Pieces of marked packets in the source's memory. */
  readonly marked: number;
  /** What the device wrote at the source and the destination has not, a line each. */
  readonly stale: readonly string[];
  /** Pages that QEMU itself lost, and that the destination has got now. */
  readonly repaired: number;
}

/**
 * Compares what the device wrote into a guest's memory, byte for byte, before the guest goes on: pieces of packets that
 * carry the mark of `GuestTraffic`, which no processor has copied, and `ranges`.
 *
 * Everything else is put right where it is not the same: QEMU without KVM clears its record of what a processor writes
 * while that processor may be about to write, and under load loses some of those writes, which end guests now and then.
 *
 * @throws Error where one has more memory than the other
 */
export function compareMemory(from: Guest, to: Guest, ranges: readonly DeviceRange[]): Comparison {
  const files: number[] = [];
  try {
    for (const guest of [from, to]) files.push(openMemory(guest));
    const [source = 0, destination = 0] = files;
    const { size } = fstatSync(source);
    if (fstatSync(destination).size !== size) throw new Error('the machines have not the same memory');
    const stale = ranges.filter((range) => !isSame(source, destination, range)).map(({ what }) => what);
    const [here, there] = [Buffer.alloc(CHUNK_BYTES), Buffer.alloc(CHUNK_BYTES)];
    let [marked, repaired] = [0, 0];
    for (let at = 0; at < size; at += CHUNK_BYTES) {
      readWhole(source, here, at);
      readWhole(destination, there, at);
      marked += compareMarked(here, there, at, stale);
      if (!here.equals(there)) repaired += repair(here, there, at, destination);
    }
    return { marked, stale, repaired };
  } finally {
    for (const file of files) closeSync(file);
  }
}

function readWhole(file: number, into: Buffer, at: number): void {
  const bytes = readSync(file, into, 0, into.length, at);
  if (bytes !== into.length) throw new Error(`memory ends at ${at + bytes}`);
}

function isSame(source: number, destination: number, { start, bytes }: DeviceRange): boolean {
  const [here, there] = [Buffer.alloc(bytes), Buffer.alloc(bytes)];
  readWhole(source, here, start);
  readWhole(destination, there, start);
  return here.equals(there);
}

/** Says of marked pieces that are not the same; returns how many there are. */
function compareMarked(here: Buffer, there: Buffer, at: number, stale: string[]): number {
  let count = 0;
  for (let place = here.indexOf(MARK); place >= 0; place = here.indexOf(MARK, place + PIECE_BYTES)) {
    const end = place + PIECE_BYTES;
    if (end > here.length) break;
    count++;
    if (here.compare(there, place, end, place, end) === 0) continue;
    const packet = here.readUInt32LE(place + MARK.length);
    const found = there.toString('hex', place, end);
    stale.push(`0x${(at + place).toString(16)}: packet ${packet} is not there, but ${found}`);
  }
  return count;
}

function repair(here: Buffer, there: Buffer, at: number, destination: number): number {
  let count = 0;
  for (let page = 0; page < here.length; page += PAGE_BYTES) {
    if (here.compare(there, page, page + PAGE_BYTES, page, page + PAGE_BYTES) === 0) continue;
    writeSync(destination, here, page, PAGE_BYTES, at + page);
    count++;
  }
  return count;
}

const VRING_USED_ENTRY_BYTES = 8;
/** Flags and index before the entries, and the event index behind them. */
const VRING_USED_WORDS_BYTES = 6;

/** The used rings of a guest's first card, of one queue pair, where addresses of the device are the guest's. */
export async function usedRings(guest: Guest): Promise<DeviceRange[]> {
  const ranges: DeviceRange[] = [];
  for (const queue of [0, 1]) {
    const ring = await guest.qmp.execute<{ readonly 'vring-used': number; readonly 'vring-num': number }>(
      'x-query-virtio-queue-status',
      { path: '/machine/peripheral/card0/virtio-backend', queue },
    );
    const bytes = VRING_USED_WORDS_BYTES + ring['vring-num'] * VRING_USED_ENTRY_BYTES;
    ranges.push({ what: `the used ring of queue ${queue}`, start: ring['vring-used'], bytes });
  }
  return ranges;
}
