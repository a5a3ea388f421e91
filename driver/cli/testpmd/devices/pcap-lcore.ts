/** `net_pcap` on an lcore. */

import { CapturePackets } from '../../../backend/ports/capture-packets.js';
import {
  type Burst,
  ErrorCode,
  EthernetHeader,
  PacketField,
  type PacketPool,
  PacketView,
  PcapReader,
  PcapWriter,
  VirtioError,
} from '../../../thread.js';
import type { LcoreContextOfPort, PolledPort, PolledRxQueue, PolledTxQueue } from '../lcore/polled-port.js';
import { PCAP_POSITIONS, PCAP_SNAP_LENGTH, type PcapQueues } from './pcap-queues.js';
import { QueueCount, rxCountsOf, txCountsOf } from './queue-counts.js';

const { DATA_OFFSET, SEGMENT_LENGTH, PACKET_LENGTH, WORDS_SHIFT } = PacketField;
const NS_PER_MS = 1_000_000n;

export function attachPort({ pool, onRequest }: LcoreContextOfPort, options: PcapQueues): PolledPort {
  const { rx, tx, rxFiles, txFiles, counts, isInfinite, positions } = options;
  const receivers = new Map<number, PcapRxQueue | InfiniteRxQueue>();
  const writers = new Map<number, PcapTxQueue>();
  const close = (): void => {
    for (const receiver of receivers.values()) receiver.close();
    for (const writer of writers.values()) writer.close();
  };
  try {
    for (const queue of rx) {
      const path = rxFiles[queue];
      if (path === undefined) continue;
      const counters = rxCountsOf(counts, queue);
      const receiver = isInfinite
        ? new InfiniteRxQueue(pool, path, counters)
        : new PcapRxQueue(pool, path, counters, positions[queue] ?? 0);
      receivers.set(queue, receiver);
    }
    for (const queue of tx) {
      const path = txFiles[queue];
      if (path !== undefined) writers.set(queue, new PcapTxQueue(pool, path, txCountsOf(counts, queue)));
    }
  } catch (error) {
    close();
    throw error;
  }
  onRequest(PCAP_POSITIONS, () => new Map([...receivers].map(([queue, { position }]) => [queue, position])));
  return {
    rxQueue: (queue) => receivers.get(queue) ?? { receive: () => 0 },
    txQueue: (queue) => writers.get(queue) ?? new DroppingTxQueue(pool, txCountsOf(counts, queue)),
    close,
  };
}

/** The packets of a file, once. */
class PcapRxQueue implements PolledRxQueue {
  readonly stampsUs: Float64Array;
  /** Packets that were received. */
  position: number;
  readonly #packets: CapturePackets;
  readonly #counts: Float64Array;

  constructor(pool: PacketPool, path: string, counts: Float64Array, position: number) {
    this.#packets = new CapturePackets(pool, path);
    this.#packets.skip(position);
    this.stampsUs = this.#packets.stampsUs;
    this.position = position;
    this.#counts = counts;
  }

  receive(burst: Burst): number {
    const start = burst.count;
    try {
      if (!this.#packets.isOver) this.#packets.addTo(burst);
    } catch {
      // A damaged file ends here, as one that is over.
      this.#counts[QueueCount.ERRORS]! += 1;
    }
    const received = burst.count - start;
    this.position += received;
    this.#counts[QueueCount.PACKETS]! += received;
    this.#counts[QueueCount.BYTES]! += this.#packets.takeBytes();
    return received;
  }

  close(): void {
    this.#packets.close();
  }
}

/** The packets of a file, for ever; they are kept in memory. */
class InfiniteRxQueue implements PolledRxQueue {
  readonly position = 0;
  readonly #pool: PacketPool;
  readonly #packets: readonly Uint8Array[];
  readonly #counts: Float64Array;
  #next = 0;

  constructor(pool: PacketPool, path: string, counts: Float64Array) {
    this.#pool = pool;
    using reader = PcapReader.open(path);
    this.#packets = Array.from(reader, ({ bytes }) => bytes).filter(({ length }) => length >= EthernetHeader.BYTES);
    this.#counts = counts;
    if (this.#packets.some(({ length }) => length > pool.dataBytes)) {
      throw new VirtioError(ErrorCode.UNSUPPORTED, 'Multiseg mbufs are not supported in infinite_rx mode.', {
        value: path,
      });
    }
  }

  receive(burst: Burst): number {
    const { fields, bytes, offset, bufferBytes, headroom } = this.#pool;
    const start = burst.count;
    const count = burst.capacity - start;
    if (this.#packets.length === 0 || !this.#pool.take(burst.handles, start, count)) return 0;
    for (let index = start; index < start + count; index++) {
      const handle = burst.handles[index]!;
      const packet = this.#packets[this.#next]!;
      this.#next = this.#next + 1 < this.#packets.length ? this.#next + 1 : 0;
      bytes.set(packet, offset + Math.imul(handle, bufferBytes) + headroom);
      const field = handle << WORDS_SHIFT;
      fields[field + DATA_OFFSET] = headroom;
      fields[field + SEGMENT_LENGTH] = packet.length;
      fields[field + PACKET_LENGTH] = packet.length;
      this.#counts[QueueCount.BYTES]! += packet.length;
    }
    burst.count += count;
    this.#counts[QueueCount.PACKETS]! += count;
    return count;
  }

  close(): void {}
}

/** Writes packets to a file, behind what is there; each burst is in the file when it has been sent. */
class PcapTxQueue implements PolledTxQueue {
  readonly #writer: PcapWriter;
  readonly #view: PacketView;
  readonly #pool: PacketPool;
  readonly #counts: Float64Array;

  constructor(pool: PacketPool, path: string, counts: Float64Array) {
    this.#pool = pool;
    this.#view = new PacketView(pool);
    this.#counts = counts;
    this.#writer = PcapWriter.create(path, { snapLength: PCAP_SNAP_LENGTH, append: true });
  }

  send(burst: Burst): number {
    const { count } = burst;
    if (count === 0) return 0;
    const now = BigInt(Date.now()) * NS_PER_MS;
    const bytes = burst.bytesTotal;
    try {
      for (let index = 0; index < count; index++) {
        this.#writer.write(this.#view.move(burst.handles[index]!).copyPacket(), now);
      }
      this.#writer.flush();
      this.#counts[QueueCount.PACKETS]! += count;
      this.#counts[QueueCount.BYTES]! += bytes;
    } catch {
      // The disk is full: the file stays as it is, and packets go nowhere.
      this.#counts[QueueCount.ERRORS]! += count;
    }
    this.#pool.free(burst.handles, 0, count);
    burst.count = 0;
    return count;
  }

  close(): void {
    this.#writer.close();
  }
}

class DroppingTxQueue implements PolledTxQueue {
  readonly #pool: PacketPool;
  readonly #counts: Float64Array;

  constructor(pool: PacketPool, counts: Float64Array) {
    this.#pool = pool;
    this.#counts = counts;
  }

  send(burst: Burst): number {
    const { count } = burst;
    this.#counts[QueueCount.PACKETS]! += count;
    this.#counts[QueueCount.BYTES]! += burst.bytesTotal;
    this.#pool.free(burst.handles, 0, count);
    burst.count = 0;
    return count;
  }
}
