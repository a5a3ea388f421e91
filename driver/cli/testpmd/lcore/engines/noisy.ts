/** Mode noisy: as io, but a noisy neighbour: looks around in memory for each packet, and lets packets wait in a queue. */

import { Burst } from '../../../../thread.js';
import type { NoisySettings } from '../forward-settings.js';
import { StreamCounter } from '../stream.js';
import type { EngineContext, EngineMaker } from './engine-maker.js';

const MIB = 0x10_0000;
const CACHE_LINE_BYTES = 64;

export const noisyEngine: EngineMaker = (stream, traffic, context) => {
  const { noisy } = context.settings;
  const lookAround = memoryLookups(noisy);
  const { burst } = stream;
  if (noisy.bufferPackets === 0) {
    return {
      forward() {
        const received = traffic.receive();
        if (received === 0) return 0;
        lookAround(received);
        traffic.send();
        return received;
      },
    };
  }
  const waiting = new WaitingPackets(context, noisy.bufferPackets);
  const arrived = new Burst(context.pool, burst.capacity);
  let lastFlush = 0;
  return {
    forward() {
      const received = traffic.receive();
      let sent = 0;
      if (received > 0) {
        const missing = received - waiting.room;
        if (missing > 0) {
          // As many as came leave, oldest first, and make the room.
          moveAll(burst, arrived);
          waiting.takeInto(burst, received);
          sent = traffic.send();
          moveAll(arrived, burst);
        }
        lookAround(waiting.add(burst));
        traffic.drop();
      }
      if (noisy.flushMs > 0 && sent === 0) {
        const now = performance.now();
        if (lastFlush === 0) lastFlush = now;
        while (now - lastFlush >= noisy.flushMs && waiting.count > 0) {
          waiting.takeInto(burst, burst.capacity);
          traffic.send();
          if (waiting.count === 0) lastFlush = performance.now();
        }
      }
      return received;
    },
    close() {
      stream.counters[StreamCounter.FWD_DROPPED]! += waiting.count;
      waiting.free();
    },
  };
};

const moveAll = (from: Burst, to: Burst): void => {
  to.handles.set(from.handles.subarray(0, from.count));
  to.count = from.count;
  from.count = 0;
};

/** Packets in the order in which they came. */
class WaitingPackets {
  count = 0;
  readonly #handles: Uint32Array;
  readonly #pool: EngineContext['pool'];
  /** How many it takes: as a ring of DPDK, one less than its size. */
  readonly #capacity: number;
  #first = 0;

  constructor({ pool }: EngineContext, size: number) {
    this.#pool = pool;
    this.#handles = new Uint32Array(size);
    this.#capacity = size - 1;
  }

  get room(): number {
    return this.#capacity - this.count;
  }

  /** Takes what there is room for from the front of the burst; returns how many. */
  add(burst: Burst): number {
    const taken = Math.min(this.room, burst.count);
    for (let index = 0; index < taken; index++) {
      this.#handles[(this.#first + this.count++) % this.#handles.length] = burst.handles[index]!;
    }
    burst.removeFirst(taken);
    return taken;
  }

  /** Moves up to `most` packets to the end of the burst. */
  takeInto(burst: Burst, most: number): void {
    for (let left = Math.min(most, this.count, burst.capacity - burst.count); left > 0; left--) {
      burst.handles[burst.count++] = this.#handles[this.#first]!;
      this.#first = (this.#first + 1) % this.#handles.length;
      this.count -= 1;
    }
  }

  free(): void {
    for (; this.count > 0; this.count--) {
      this.#pool.freeOne(this.#handles[this.#first]!);
      this.#first = (this.#first + 1) % this.#handles.length;
    }
  }
}

/** Returns what reads and writes anywhere in memory, as often as is set, for each of a number of packets. */
function memoryLookups({ memoryMiB, reads, writes, readWrites }: NoisySettings): (packets: number) => void {
  if (reads + writes + readWrites === 0) return () => undefined;
  const memory = new Uint8Array(memoryMiB * MIB);
  const places = (memoryMiB * MIB) / CACHE_LINE_BYTES;
  const anywhere = (): number => Math.floor(Math.random() * places);
  const write = (): void => {
    memory[anywhere()] = Math.random() * 0x100;
  };
  // Added up, so that no read can be left out.
  let seen = 0;
  const read = (): void => {
    seen = (seen + memory[anywhere()]!) & 0xff;
  };
  return (packets) => {
    for (let packet = 0; packet < packets; packet++) {
      for (let count = 0; count < writes; count++) write();
      for (let count = 0; count < reads; count++) read();
      for (let count = 0; count < readWrites; count++) {
        read();
        write();
      }
    }
    memory[0] = seen;
  };
}
