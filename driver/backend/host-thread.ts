/** A host port on a thread that polls it: the rings that are there, as a queue pair's two directions. */

import type { Burst } from '../memory/burst.js';
import type { PacketPool } from '../memory/packet-pool.js';
import { type DeviceThreadEvent, GuestDevices } from './guest-devices.js';
import { SCRATCH_BYTES } from './guest-queues.js';
import { applicationPortModule } from './ports/application.js';

/** What the application's thread gives a port. */
export interface HostThreadContext {
  /** The pool of `HostPortOptions`, as this thread has it. */
  readonly pool: PacketPool;
  /** Has a request of the control plane answered (`HostPortThread.request`). */
  onRequest(type: string, handler: (payload: never) => unknown): void;
  /** Hands an event to the control plane, for `HostPort.onThreadEvent`. */
  emit(event: DeviceThreadEvent): void;
}

/** The device of a port on one thread; nothing moves while no front-end is there, or the ring is on another thread. */
export class AttachedHostPort {
  #devices: GuestDevices | undefined;

  constructor(context: HostThreadContext) {
    context.onRequest('open', ({ scratch }: { scratch: number }) => {
      this.#devices = guestDevices(context.pool, scratch, context.emit);
      this.#devices.serve(context.onRequest);
    });
  }

  /** Adds packets that the guest has sent on a pair to the burst, as they fit; returns how many. */
  receive(pair: number, burst: Burst): number {
    const device = this.#devices?.all[0];
    return device === undefined ? 0 : device.receive(pair, burst);
  }

  /** Gives packets from the front of the burst to the guest, as far as it has buffers; the rest stays. Returns how many left it. */
  send(pair: number, burst: Burst): number {
    const device = this.#devices?.all[0];
    return device === undefined ? 0 : device.send(pair, burst);
  }

  /** Once a turn of the loop. */
  tend(): void {
    this.#devices?.all[0]?.tend();
  }

  /** The control plane has the rings back by then (`HostPort.detach`), or loses them. Idempotent. */
  close(): void {
    this.#devices?.close();
  }
}

/** @param scratch where in the pool's memory the thread may copy tables to: `SCRATCH_BYTES` of its own */
export const guestDevices = (
  pool: PacketPool,
  scratch: number,
  emit: (event: DeviceThreadEvent) => void,
): GuestDevices =>
  new GuestDevices({
    resources: {
      pool,
      scratch: { poolOffset: scratch, words: new Uint32Array(pool.memory.buffer, scratch, SCRATCH_BYTES / 4) },
    },
    moduleOf: () => applicationPortModule,
    emit,
  });
