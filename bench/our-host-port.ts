/** The port of our end on the host's side: what testpmd's `mac` mode does after `start tx_first`. */

import { type BackendPort, type BackendPortContext, type Burst, macForward, PacketView } from 'virtio-pmd/thread';

/** How the port is made. */
export interface OurHostPortOptions {
  /** Frames that it sends once, and their length in bytes. */
  readonly frames: number;
  readonly bytes: number;
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

/** Sends what comes from the guest back to it, in order; for one queue pair. */
class OurHostPort implements BackendPort {
  readonly #view: PacketView;
  readonly #bytes: number;
  readonly #begin: Int32Array;
  #framesLeft: number;

  constructor(context: BackendPortContext, options: OurHostPortOptions) {
    this.#view = new PacketView(context.pool);
    this.#bytes = options.bytes;
    this.#begin = new Int32Array(options.begin);
    this.#framesLeft = options.frames;
  }

  bounce(burst: Burst, start: number): void {
    macForward(burst, SELF, PEER, start);
  }

  room(): number {
    return 0;
  }
  fromGuest(): void {}

  toGuest(burst: Burst): void {
    if (this.#framesLeft > 0) this.#addFrames(burst);
  }

  close(): void {}

  /** Adds frames of its own, once the word says so. */
  #addFrames(burst: Burst): void {
    if (Atomics.load(this.#begin, 0) === 0) return;
    const start = burst.count;
    const count = Math.min(this.#framesLeft, burst.capacity - start);
    if (burst.allocate(count) === 0) return;
    for (let index = start; index < start + count; index++) {
      this.#view.move(burst.handles[index]!).setLength(this.#bytes);
      this.#view.setU16(12, ETHERTYPE_IPV4);
    }
    macForward(burst, SELF, PEER, start);
    this.#framesLeft -= count;
  }
}
