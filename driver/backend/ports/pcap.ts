/** Writes what comes from the guest to a capture file, sends the packets of another to the guest. */

import type { Burst } from '../../memory/burst.js';
import { PacketView } from '../../memory/packet-view.js';
import { PcapReader } from '../../pcap/pcap-reader.js';
import { PcapWriter } from '../../pcap/pcap-writer.js';
import type { BackendPort, BackendPortContext } from './backend-port.js';

export interface PcapOptions {
  /** Capture file to send from, once, on pair 0. Packets longer than a buffer are skipped. */
  readonly input?: string | undefined;
  /** Capture file to write what the guest sends. */
  readonly output?: string | undefined;
}

export function createPort(context: BackendPortContext, options: PcapOptions): BackendPort {
  return new PcapPort(context, options);
}

class PcapPort implements BackendPort {
  readonly #reader: PcapReader | undefined;
  readonly #writer: PcapWriter | undefined;
  readonly #view: PacketView;
  readonly #dataBytes: number;
  #finished = false;

  constructor(context: BackendPortContext, options: PcapOptions) {
    this.#view = new PacketView(context.pool);
    this.#dataBytes = context.pool.dataBytes;
    this.#reader = options.input === undefined ? undefined : PcapReader.open(options.input);
    try {
      this.#writer = options.output === undefined ? undefined : PcapWriter.create(options.output);
    } catch (error) {
      this.#reader?.close();
      throw error;
    }
  }

  room(): number {
    return Number.MAX_SAFE_INTEGER;
  }

  fromGuest(burst: Burst): void {
    const writer = this.#writer;
    if (writer !== undefined) {
      const now = BigInt(Date.now()) * 1_000_000n;
      for (let index = 0; index < burst.count; index++)
        writer.write(this.#view.move(burst.handles[index]!).copyPacket(), now);
    }
    burst.free();
  }

  toGuest(burst: Burst, pair: number): void {
    if (pair !== 0 || this.#reader === undefined || this.#finished) return;
    while (burst.count < burst.capacity) {
      const packet = this.#reader.next();
      if (packet === undefined) {
        this.#finished = true;
        return;
      }
      if (packet.bytes.length > this.#dataBytes) continue;
      if (burst.allocate(1) === 0) return;
      this.#view.move(burst.handles[burst.count - 1]!).fill(packet.bytes);
    }
  }

  close(): void {
    this.#reader?.close();
    this.#writer?.close();
  }
}
