/** A queue pair of a device on a poll thread, and how it gets to another one. */

import { ErrorCode, VirtioError } from '../errors.js';
import type { Burst } from '../memory/burst.js';
import { PacketField } from '../memory/packet-fields.js';
import { PacketView } from '../memory/packet-view.js';
import type { CompletedPackets } from './completed-packets.js';
import { RingCounter } from './counters.js';
import type { FromGuestQueue } from './from-guest-queue.js';
import type { RingOnTheMove } from './guest-rings.js';
import type { ToGuestQueue } from './to-guest-queue.js';

export interface Pair {
  readonly number: number;
  /** To be polled: open, and not waiting for a translation. */
  receive: ToGuestQueue | undefined;
  transmit: FromGuestQueue | undefined;
  /** Open, and waiting for a translation. */
  parkedReceive: ToGuestQueue | undefined;
  parkedTransmit: FromGuestQueue | undefined;
  /** Packets on their way to the guest that it has no buffers for yet. */
  readonly waiting: Burst;
  /** Those before them that the host has worked on in place of the guest. */
  readonly completed: CompletedPackets;
  /** Packets of the guest on their way to a port that does none of the work they ask for, and those where it is done. */
  readonly requested: Burst;
  readonly served: CompletedPackets;
  /** Of the receiveq. */
  readonly counters: Float64Array;
  /** Of the transmitq. */
  readonly transmitCounters: Float64Array;
}

/** A packet between the pools of two threads. */
export interface PacketOnTheMove {
  readonly bytes: Uint8Array;
  /** The fields that are about the packet and not about its buffers, in the order of `FIELDS`. */
  readonly fields: readonly number[];
}

/** A pair between two threads (structured clone). */
export interface PairOnTheMove {
  readonly receive: RingOnTheMove;
  readonly transmit: RingOnTheMove;
  readonly waiting: readonly PacketOnTheMove[];
  /** Of `Pair.completed` and `Pair.requested`; segments behind a burst of them are lost. */
  readonly completed: readonly PacketOnTheMove[];
  readonly requested: readonly PacketOnTheMove[];
  /** What the port of the old thread tells that of the new one. */
  readonly port: unknown;
}

const { FLAGS, VLAN_AND_PORT, HASH, CHECKSUM, DATA_OFFSET, SEGMENT_LENGTH, PACKET_LENGTH, NEXT, WORDS } = PacketField;
const FIELDS = [FLAGS, VLAN_AND_PORT, HASH, CHECKSUM] as const;

/** Whether packets wait for either side of a pair. */
export const isHolding = ({ waiting, completed, requested, served }: Pair): boolean =>
  waiting.count > 0 || completed.isWaiting || requested.count > 0 || served.isWaiting;

/** Frees the packets that wait for the guest, and counts them as not taken. */
export function dropForGuest({ waiting, completed, counters }: Pair): void {
  counters[RingCounter.DROP_NOT_TAKEN]! += waiting.count + completed.free();
  waiting.free();
}

/** Frees the packets of the guest that wait for the port, and counts them as not taken. */
export function dropFromGuest({ requested, served, transmitCounters }: Pair): void {
  transmitCounters[RingCounter.DROP_NOT_TAKEN]! += requested.count + served.free();
  requested.free();
}

/** Frees all packets that wait for either side of a pair. */
export function freePackets({ waiting, completed, requested, served }: Pair): void {
  waiting.free();
  completed.free();
  requested.free();
  served.free();
}

/** As `packPackets`, and leaves the burst empty. */
export function takePackets(burst: Burst): PacketOnTheMove[] {
  const packets = packPackets(burst);
  burst.free();
  return packets;
}

/** Copies the packets of a burst, which keeps them. */
export function packPackets(burst: Burst): PacketOnTheMove[] {
  const view = new PacketView(burst.pool);
  return Array.from(burst.handles.subarray(0, burst.count), (handle) => ({
    fields: FIELDS.map((field) => burst.pool.fields[handle * WORDS + field]!),
    bytes: view.move(handle).copyPacket(),
  }));
}

/** Puts packets into an empty burst. @throws VirtioError NO_RESOURCES without buffers for all of them; it stays empty then */
export function unpackPackets(packets: readonly PacketOnTheMove[], burst: Burst): void {
  const { pool } = burst;
  const { fields, dataBytes } = pool;
  for (const { bytes, fields: values } of packets) {
    const segments = new Uint32Array(Math.max(1, Math.ceil(bytes.length / dataBytes)));
    if (!pool.allocate(segments, 0, segments.length)) {
      burst.free();
      throw new VirtioError(ErrorCode.NO_RESOURCES, `${packets.length} packets do not fit the buffers of the thread`);
    }
    for (const [index, handle] of segments.entries()) {
      const part = bytes.subarray(index * dataBytes, (index + 1) * dataBytes);
      const field = handle * WORDS;
      pool.bytes.set(part, pool.offset + handle * pool.bufferBytes + fields[field + DATA_OFFSET]!);
      fields[field + SEGMENT_LENGTH] = part.length;
      const next = segments[index + 1];
      if (next !== undefined) fields[field + NEXT] = next + 1;
    }
    const first = segments[0]! * WORDS;
    fields[first + PACKET_LENGTH] = bytes.length;
    for (const [index, field] of FIELDS.entries()) fields[first + field] = values[index]!;
    burst.handles[burst.count++] = segments[0]!;
  }
}
