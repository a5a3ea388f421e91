/** `capture start`, on an lcore: appends the packets of a port's queues to the file as they are received and before they are sent. */

import { PacketDirection } from '../../../pcap/format.js';
import { PcapngWriter } from '../../../pcap/pcapng-writer.js';
import { type Burst, type PacketPool, PacketView } from '../../../thread.js';
import type { QueueObserver } from './observed-queue.js';

export interface CaptureOrder {
  readonly path: string;
  /** Number of the port's interface in the file. */
  readonly source: number;
}

/** Packets that have waited this long are in the file when the next one comes. */
const FLUSH_MS = 100;
const NS_PER_MS = 1_000_000n;

export const createObserver = (pool: PacketPool, order: CaptureOrder): QueueObserver =>
  new CaptureObserver(pool, order);

class CaptureObserver implements QueueObserver {
  readonly #view: PacketView;
  readonly #source: number;
  /** Given up when the file cannot be written: packets go on being forwarded. */
  #writer: PcapngWriter | undefined;
  #flushed = 0;
  /** What turns the monotonic clock into that of the wall. */
  readonly #epochNs = BigInt(Date.now()) * NS_PER_MS - process.hrtime.bigint();

  constructor(pool: PacketPool, { path, source }: CaptureOrder) {
    this.#view = new PacketView(pool);
    this.#source = source;
    this.#writer = new PcapngWriter(path);
  }

  received(burst: Burst, start: number, queue: number): void {
    this.#store(burst, start, queue, PacketDirection.RECEIVED);
  }

  sending(burst: Burst, queue: number): void {
    this.#store(burst, 0, queue, PacketDirection.SENT);
  }

  close(): void {
    this.#writer?.close();
    this.#writer = undefined;
  }

  #store(burst: Burst, start: number, queue: number, direction: PacketDirection): void {
    if (this.#writer === undefined) return;
    const timestampNs = this.#epochNs + process.hrtime.bigint();
    const origin = { source: this.#source, direction, queue, timestampNs };
    try {
      for (let index = start; index < burst.count; index++) {
        this.#writer.write(this.#view.move(burst.handles[index]!).copyPacket(), origin);
      }
      const now = performance.now();
      if (now - this.#flushed < FLUSH_MS) return;
      this.#flushed = now;
      this.#writer.flush();
    } catch {
      this.#writer = undefined;
    }
  }
}
