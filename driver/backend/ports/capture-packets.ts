/** The packets of a capture file as packets of a pool, once or for ever. */

import { type Burst, MAX_BURST } from '../../memory/burst.js';
import { PacketField } from '../../memory/packet-fields.js';
import type { PacketPool } from '../../memory/packet-pool.js';
import { PacketView } from '../../memory/packet-view.js';
import type { CapturedPacket } from '../../pcap/captured-packet.js';
import { PcapReader } from '../../pcap/pcap-reader.js';
import { ETHERNET_HEADER_BYTES, MAX_PACKET_BYTES } from '../../spec/ethernet.js';

const { NEXT, PACKET_LENGTH, WORDS_SHIFT } = PacketField;

const NS_PER_US = 1000;

export class CapturePackets {
  readonly path: string;
  /** When the packets of the last `addTo` were captured, in order: microseconds since 1970-01-01 UTC. */
  readonly stampsUs = new Float64Array(MAX_BURST);
  readonly #pool: PacketPool;
  readonly #view: PacketView;
  readonly #handles: Uint32Array;
  readonly #loops: boolean;
  #reader: PcapReader | undefined;
  /** Read, and waiting for buffers. */
  #pending: CapturedPacket | undefined;
  #sentThisTime = 0;
  #skipped = 0;
  #bytes = 0;

  /** @throws VirtioError as of `PcapReader.open` */
  constructor(pool: PacketPool, path: string, loops = false) {
    this.path = path;
    this.#pool = pool;
    this.#view = new PacketView(pool);
    this.#handles = new Uint32Array(Math.ceil(MAX_PACKET_BYTES / pool.dataBytes));
    this.#loops = loops;
    this.#reader = PcapReader.open(path);
  }

  /** Passes over packets: those that somebody has had before. @throws VirtioError as of `addTo` */
  skip(count: number): void {
    for (let passed = 0; passed < count && this.#next() !== undefined; passed++);
  }

  /** Whether nothing more comes. */
  get isOver(): boolean {
    return this.#reader === undefined;
  }

  /** Packets that were left out since the last call: no device carries such lengths. */
  takeSkipped(): number {
    const skipped = this.#skipped;
    this.#skipped = 0;
    return skipped;
  }

  /** Bytes of packets that were added since the last call. */
  takeBytes(): number {
    const bytes = this.#bytes;
    this.#bytes = 0;
    return bytes;
  }

  /**
   * Fills the burst up, as far as there are packets and buffers.
   *
   * @throws VirtioError where the file is damaged or cannot be read; it is over then, with what came before in the burst
   */
  addTo(burst: Burst): void {
    const start = burst.count;
    try {
      while (burst.count < burst.capacity) {
        this.#pending ??= this.#next();
        if (this.#pending === undefined) return;
        const { bytes, timestampNs } = this.#pending;
        this.stampsUs[burst.count - start] = Number(timestampNs) / NS_PER_US;
        if (!this.#add(burst, bytes)) return;
        this.#bytes += bytes.length;
        this.#pending = undefined;
      }
    } catch (error) {
      this.close();
      throw error;
    }
  }

  /** Idempotent. */
  close(): void {
    this.#reader?.close();
    this.#reader = undefined;
    this.#pending = undefined;
  }

  #next(): CapturedPacket | undefined {
    while (this.#reader !== undefined) {
      const packet = this.#reader.next();
      if (packet === undefined) this.#end();
      else if (packet.bytes.length < ETHERNET_HEADER_BYTES || packet.bytes.length > MAX_PACKET_BYTES) this.#skipped++;
      else {
        this.#sentThisTime++;
        return packet;
      }
    }
    return undefined;
  }

  /** Begins anew, but for a file that has nothing to send. */
  #end(): void {
    const again = this.#loops && this.#sentThisTime > 0;
    this.#sentThisTime = 0;
    this.close();
    if (again) this.#reader = PcapReader.open(this.path);
  }

  /** Adds a packet in as many buffers as it takes; false without them. */
  #add(burst: Burst, bytes: Uint8Array): boolean {
    const { fields, dataBytes } = this.#pool;
    const handles = this.#handles;
    const count = Math.ceil(bytes.length / dataBytes);
    if (!this.#pool.allocate(handles, 0, count)) return false;
    for (let index = 0; index < count; index++) {
      const handle = handles[index]!;
      this.#view.move(handle).fill(bytes.subarray(index * dataBytes, (index + 1) * dataBytes));
      if (index + 1 < count) fields[(handle << WORDS_SHIFT) + NEXT] = handles[index + 1]! + 1;
    }
    fields[(handles[0]! << WORDS_SHIFT) + PACKET_LENGTH] = bytes.length;
    burst.handles[burst.count++] = handles[0]!;
    return true;
  }
}
