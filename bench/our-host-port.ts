/** The port of our end on the host's side: what testpmd's `mac` mode does after `start tx_first`. */

import { type BackendPort, type BackendPortContext, type Burst, macForward, PacketView } from 'virtio-pmd/thread';

/** How the port is made. */
export interface OurHostPortOptions {
  /** Frames that it sends once on each pair: how long, and how many. */
  readonly frames: readonly { readonly bytes: number; readonly count: number }[];
  /** One word: 1 from the moment that the frames may be sent. */
  readonly begin: SharedArrayBuffer;
}

/** Where testpmd sends packets to when it is told nothing else, and the address of a `net_vhost` port. */
const PEER = [0x02, 0, 0, 0, 0, 0];
const SELF = [0x56, 0x48, 0x4f, 0x53, 0x54, 0];
const ETHERTYPE_IPV4 = 0x0800;

export function createPort(context: BackendPortContext, options: OurHostPortOptions): BackendPort {
  return new OurHostPort(context, options);
}

/** Sends what comes from the guest back to it, on the pair it came on and in order. */
class OurHostPort implements BackendPort {
  readonly #view: PacketView;
  readonly #begin: Int32Array;
  /** What is still to be sent first, of each pair. */
  readonly #left: { bytes: number; count: number }[][];
  /** Frames in it, of all pairs. */
  #framesLeft: number;

  constructor(context: BackendPortContext, options: OurHostPortOptions) {
    this.#view = new PacketView(context.pool);
    this.#begin = new Int32Array(options.begin);
    this.#left = Array.from({ length: context.queuePairs }, () => options.frames.map((run) => ({ ...run })));
    this.#framesLeft = this.#left.flat().reduce((sum, run) => sum + run.count, 0);
  }

  bounce(burst: Burst, start: number): void {
    macForward(burst, SELF, PEER, start);
  }

  room(): number {
    return 0;
  }
  fromGuest(): void {}

  toGuest(burst: Burst, pair: number): void {
    if (this.#framesLeft > 0) this.#addFrames(burst, this.#left[pair]!);
  }

  close(): void {}

  /** Adds frames of its own, once the word says so. */
  #addFrames(burst: Burst, left: { bytes: number; count: number }[]): void {
    const run = left.find(({ count }) => count > 0);
    if (run === undefined || Atomics.load(this.#begin, 0) === 0) return;
    const start = burst.count;
    const count = Math.min(run.count, burst.capacity - start);
    if (burst.allocate(count) === 0) return;
    for (let index = start; index < start + count; index++) {
      this.#view.move(burst.handles[index]!).setLength(run.bytes);
      this.#view.setU16(12, ETHERTYPE_IPV4);
    }
    macForward(burst, SELF, PEER, start);
    run.count -= count;
    this.#framesLeft -= count;
  }
}
