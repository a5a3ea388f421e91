/** Sends packets of a pattern to the guest, at a rate or as fast as it takes them; takes and frees what comes back. */

import { ErrorCode, VirtioError } from '../../errors.js';
import type { Burst } from '../../memory/burst.js';
import { PacketView } from '../../memory/packet-view.js';
import type { BackendPort, BackendPortContext } from './backend-port.js';

export interface SourceOptions {
  /** Bytes of each packet, Ethernet header included: 14 to what one buffer takes. Default 64. */
  readonly bytes?: number | undefined;
  /** Packets to send on each pair; without end when not given. */
  readonly packets?: number | undefined;
  /** Packets a second on each pair; as fast as the guest takes them when not given. */
  readonly rate?: number | undefined;
}

const ETHERTYPE_LOCAL_EXPERIMENTAL = 0x88b5;
const ADDRESSES = [0x02, 0, 0, 0, 0, 0x01, 0x02, 0, 0, 0, 0, 0x02];
/** Where the sequence number (u32) stands: behind the Ethernet header. */
const SEQUENCE_AT = 14;

export function createPort(context: BackendPortContext, options: SourceOptions): BackendPort {
  return new SourcePort(context, options);
}

class SourcePort implements BackendPort {
  readonly #bytes: number;
  readonly #packets: number;
  readonly #rate: number | undefined;
  readonly #sent: Float64Array;
  readonly #view: PacketView;
  readonly #start = performance.now();

  constructor(context: BackendPortContext, options: SourceOptions) {
    const { bytes = 64, packets = Number.POSITIVE_INFINITY, rate } = options;
    if (!Number.isInteger(bytes) || bytes < SEQUENCE_AT || bytes > context.pool.dataBytes) {
      throw new VirtioError(
        ErrorCode.INVALID_ARGUMENT,
        `a source sends packets of 14 to ${context.pool.dataBytes} bytes, not ${bytes}`,
        {
          value: bytes,
        },
      );
    }
    this.#bytes = bytes;
    this.#packets = packets;
    this.#rate = rate;
    this.#sent = new Float64Array(context.queuePairs);
    this.#view = new PacketView(context.pool);
  }

  room(): number {
    return Number.MAX_SAFE_INTEGER;
  }

  fromGuest(burst: Burst): void {
    burst.free();
  }

  toGuest(burst: Burst, pair: number): void {
    const sent = this.#sent[pair]!;
    const due =
      this.#rate === undefined ? Number.POSITIVE_INFINITY : ((performance.now() - this.#start) / 1000) * this.#rate;
    const count = Math.floor(Math.min(burst.capacity - burst.count, this.#packets - sent, due - sent));
    const start = burst.count;
    if (count <= 0 || burst.allocate(count) === 0) return;
    for (let index = 0; index < count; index++) {
      const view = this.#view.move(burst.handles[start + index]!);
      view.setLength(this.#bytes);
      for (let position = 0; position < ADDRESSES.length; position++) view.setU8(position, ADDRESSES[position]!);
      view.setU16(12, ETHERTYPE_LOCAL_EXPERIMENTAL);
      // Nothing of what the buffer held before gets out: that may be another guest's.
      view.clear(SEQUENCE_AT);
      if (this.#bytes >= SEQUENCE_AT + 4) view.setU32(SEQUENCE_AT, sent + index);
    }
    this.#sent[pair] = sent + count;
  }

  close(): void {}
}
