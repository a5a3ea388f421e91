/** What a guest asks for in the headers of its packets, on its way to the fields of the packets. */

import type { Burst } from '../memory/burst.js';
import { PacketField } from '../memory/packet-fields.js';
import { HeaderVerdict, NetHeaderReader } from '../offload/header.js';
import { RingCounter } from './counters.js';
import type { RingContext } from './ring-context.js';

const { DATA_OFFSET, PACKET_LENGTH, WORDS_SHIFT } = PacketField;
const { PACKETS, BYTES, DROP_OFFLOAD } = RingCounter;

/** Reads headers that the copy engine has put before the packets: the guest cannot change them any more. */
export class RequestedWork {
  readonly #context: RingContext;
  readonly #reader: NetHeaderReader;

  constructor(context: RingContext) {
    this.#context = context;
    this.#reader = new NetHeaderReader(context.pool, context.requests);
  }

  /** Sets the flags of packets `start` on; drops and counts those that ask for what cannot be done. */
  read(burst: Burst, start: number): void {
    const { pool, headerBytes, counters } = this.#context;
    const { fields, offset, bufferBytes } = pool;
    const { handles, count } = burst;
    let to = start;
    for (let index = start; index < count; index++) {
      const handle = handles[index]!;
      const field = handle << WORDS_SHIFT;
      const header = offset + Math.imul(handle, bufferBytes) + fields[field + DATA_OFFSET]! - headerBytes;
      if (this.#reader.read(handle, header) === HeaderVerdict.SOUND) {
        handles[to++] = handle;
        continue;
      }
      counters[PACKETS]! -= 1;
      counters[BYTES]! -= fields[field + PACKET_LENGTH]!;
      counters[DROP_OFFLOAD]! += 1;
      pool.free(handles, index, 1);
    }
    burst.count = to;
  }
}
