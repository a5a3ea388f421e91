/** The copy jobs of usual bursts: chains of one buffer, packets of one segment. */

import { type CopyEngine, CopyJob } from '../../native/index.js';
import { PacketField } from '../memory/packet-fields.js';
import { writePlainHeader } from '../memory/packet-header.js';
import type { PacketPool } from '../memory/packet-pool.js';
import { ETHERNET_HEADER_BYTES } from '../spec/ethernet.js';
import { specialize } from '../specialize.js';
import type { ReceiveSteering } from './receive-steering.js';

/** Completes the jobs that a ring's `pop` began. */
export interface BurstJobs {
  /**
   * Jobs 0 to `count - 1` fetch packets into the buffers `handles[start]` on, whose fields are set.
   * Returns the packets' bytes, or -1 when something is unusual.
   */
  fetch(handles: Uint32Array, start: number, count: number): number;
  /** Whether the headers that `fetch` has brought ask for nothing. */
  asksNothing(handles: Uint32Array, start: number, count: number): boolean;
  /**
   * Jobs 0 to `count - 1` deliver the packets `handles[0]` on, with room for a header before each, which is there already
   * only where it tells a hash; `lengths` gets what each takes.
   * Returns the packets' bytes, or -1 when something is unusual.
   */
  deliver(handles: Uint32Array, lengths: Uint32Array, count: number): number;
  /**
   * Jobs 0 to `count - 1` deliver packets of another guest, which are in the jobs `packets[0]` on of its list `sources`, a
   * header of `sourceHeaderBytes` before each; `lengths` gets what each takes with a header. Returns the packets' bytes.
   */
  relay(
    sources: Uint32Array,
    sourceHeaderBytes: number,
    packets: Uint16Array,
    lengths: Uint32Array,
    count: number,
  ): number;
}

const { DATA_OFFSET, SEGMENT_LENGTH, PACKET_LENGTH, NEXT, FLAGS, WORDS_SHIFT } = PacketField;
const { POOL_OFFSET, LENGTH, SOURCE, WORDS_SHIFT: JOB_SHIFT } = CopyJob;

export const burstJobs = specialize(
  function burstJobs(
    pool: PacketPool,
    engine: CopyEngine,
    headerBytes: number,
    hashes?: ReceiveSteering | undefined,
  ): BurstJobs {
    const { fields, halfWords, offset, headroom, bufferBytes } = pool;
    const { jobs } = engine;
    const shortest = headerBytes + ETHERNET_HEADER_BYTES;
    const longest = pool.dataBytes + headerBytes;
    const fetchAt = offset + headroom - headerBytes;

    function fetch(handles: Uint32Array, start: number, count: number): number {
      const from = start | 0;
      const end = count | 0;
      let bytes = 0;
      for (let index = 0; index < end; index++) {
        const job = index << JOB_SHIFT;
        const handle = handles[from + index]!;
        const length = jobs[job + LENGTH]!;
        if (length < shortest || length > longest) return -1;
        jobs[job + POOL_OFFSET] = fetchAt + Math.imul(handle, bufferBytes);
        const field = handle << WORDS_SHIFT;
        fields[field + DATA_OFFSET] = headroom;
        fields[field + SEGMENT_LENGTH] = length - headerBytes;
        fields[field + PACKET_LENGTH] = length - headerBytes;
        bytes += length;
      }
      return bytes - count * headerBytes;
    }

    function asksNothing(handles: Uint32Array, start: number, count: number): boolean {
      let asked = 0;
      for (let index = start; index < start + count; index++) {
        // `flags` and `gso_type`, at an even address; the rest of a header means nothing without them.
        asked |= halfWords[(fetchAt + Math.imul(handles[index]!, bufferBytes)) >>> 1]!;
      }
      return asked === 0;
    }

    function deliver(handles: Uint32Array, lengths: Uint32Array, count: number): number {
      const end = count | 0;
      let bytes = 0;
      for (let index = 0; index < end; index++) {
        const job = index << JOB_SHIFT;
        const handle = handles[index]!;
        const field = handle << WORDS_SHIFT;
        const dataOffset = fields[field + DATA_OFFSET]!;
        const length = fields[field + SEGMENT_LENGTH]! + headerBytes;
        // Without flags too: such packets go back to the pool as they are.
        const isPlain = (fields[field + NEXT]! | fields[field + FLAGS]!) === 0;
        if (!isPlain || dataOffset < headerBytes || length > jobs[job + LENGTH]!) return -1;
        const header = offset + Math.imul(handle, bufferBytes) + dataOffset - headerBytes;
        jobs[job + POOL_OFFSET] = header;
        jobs[job + LENGTH] = length;
        lengths[index] = length;
        bytes += length;
      }
      // In a loop of its own: the one above is everybody's.
      if (hashes !== undefined) {
        for (let index = 0; index < count; index++) {
          const header = jobs[(index << JOB_SHIFT) + POOL_OFFSET]!;
          writePlainHeader(pool, header, headerBytes, 1);
          hashes.report(handles[index]!, header);
        }
      }
      return bytes - count * headerBytes;
    }

    function relay(
      sources: Uint32Array,
      sourceHeaderBytes: number,
      packets: Uint16Array,
      lengths: Uint32Array,
      count: number,
    ): number {
      let bytes = 0;
      for (let index = 0; index < count; index++) {
        const packet = packets[index]!;
        const size = sources[(packet << JOB_SHIFT) + LENGTH]! - sourceHeaderBytes;
        jobs[(index << JOB_SHIFT) + SOURCE] = packet;
        lengths[index] = size + headerBytes;
        bytes += size;
      }
      return bytes;
    }

    return { fetch, asksNothing, deliver, relay };
  },
  {
    ...{ DATA_OFFSET, SEGMENT_LENGTH, PACKET_LENGTH, NEXT, FLAGS, WORDS_SHIFT },
    ...{ POOL_OFFSET, LENGTH, SOURCE, JOB_SHIFT },
    ...{ ETHERNET_HEADER_BYTES, writePlainHeader },
  },
);
