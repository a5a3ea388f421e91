/** The generator and receiver of trials, on a poll thread: the same on either side of the wire. */

import { type Burst, type PacketPool, PacketView } from 'virtio-pmd/thread';

import { GRACE_MS, LAG_MAX, SAMPLES_MAX, type TrialMemory } from './trial.js';

/** Broadcast, from 02:00:00:00:00:01, of the EtherType for local experiments (IEEE 802). */
const HEADER = [0xffff_ffff, 0xffff_0200, 0x0000_0001] as const;
const ETHERTYPE = 0x88b5;
/** Where a packet says which trial it belongs to, and when it was due: nanoseconds of the trial, 32 bits of them. */
const AT = { ETHERTYPE: 12, TRIAL: 14, DUE: 18 } as const;
const NANOSECONDS_PER_MS = 1e6;

/**
 * Runs the trials that are asked for in a `TrialMemory`.
 *
 * A packet's time counts from when it was due, not from when there was room for it: what waits because the other side
 * stands still counts as late (no "coordinated omission").
 */
export class MeterTraffic {
  readonly #memory: TrialMemory;
  readonly #view: PacketView;
  readonly #samples: Uint32Array;
  /** The trial that runs, or ran last. */
  #trial = 0;
  #isRunning = false;
  #bytes = 0;
  #perMs = 0;
  #nanosecondsApart = 0;
  #start = 0;
  #end = 0;
  #lastSent = 0;
  /** Packets that were put into a burst, and those that had no room for too long. */
  #made = 0;
  #refused = 0;
  #received = 0;
  #sampled = 0;
  /** Every so many-th packet is timed. */
  #stride = 1;

  constructor(memory: TrialMemory, pool: PacketPool) {
    this.#memory = memory;
    this.#samples = memory.samples;
    this.#view = new PacketView(pool);
  }

  /** Adds the packets that are due to the burst, as far as it has room. Once a turn: begins and ends trials, too. */
  fill(burst: Burst): void {
    if (!this.#isRunning && !this.#begin()) return;
    const now = performance.now();
    const due = Math.floor((now < this.#end ? now - this.#start : this.#end - this.#start) * this.#perMs);
    let waiting = due - this.#made - this.#refused;
    if (now >= this.#end && this.#isOver(now, waiting + burst.count)) {
      this.#finish();
      return;
    }
    if (waiting > LAG_MAX) {
      this.#refused += waiting - LAG_MAX;
      waiting = LAG_MAX;
    }
    const first = burst.count;
    const room = burst.capacity - first;
    const count = waiting < room ? waiting : room;
    if (count <= 0 || burst.allocate(count) === 0) return;
    for (let index = first; index < first + count; index++) this.#write(burst.handles[index]!);
    this.#lastSent = now;
  }

  /** Counts and times the packets of the burst, and frees them. */
  take(burst: Burst): void {
    const nanoseconds = (performance.now() - this.#start) * NANOSECONDS_PER_MS;
    const view = this.#view;
    for (let index = 0; index < burst.count; index++) {
      view.move(burst.handles[index]!);
      if (view.u32(AT.TRIAL) !== this.#trial || view.u16(AT.ETHERTYPE) !== ETHERTYPE) continue;
      if (this.#received++ % this.#stride === 0 && this.#sampled < SAMPLES_MAX) {
        this.#samples[this.#sampled++] = nanoseconds - view.u32(AT.DUE);
      }
    }
    burst.free();
  }

  #begin(): boolean {
    const requested = this.#memory.requested;
    if (requested === this.#trial) return false;
    const { rate, seconds, bytes } = this.#memory.plan;
    this.#trial = requested;
    this.#bytes = bytes;
    this.#perMs = rate / 1000;
    this.#nanosecondsApart = 1e9 / rate;
    this.#stride = Math.ceil((rate * seconds) / SAMPLES_MAX);
    this.#made = this.#refused = this.#received = this.#sampled = 0;
    this.#start = this.#lastSent = performance.now();
    this.#end = this.#start + seconds * 1000;
    this.#isRunning = true;
    return true;
  }

  #write(handle: number): void {
    const view = this.#view.move(handle);
    view.setLength(this.#bytes);
    view.setU32(0, HEADER[0]);
    view.setU32(4, HEADER[1]);
    view.setU32(8, HEADER[2]);
    view.setU16(AT.ETHERTYPE, ETHERTYPE);
    view.setU32(AT.TRIAL, this.#trial);
    view.setU32(AT.DUE, ((this.#made + this.#refused) * this.#nanosecondsApart) >>> 0);
    this.#made++;
  }

  /** Everything was sent and is back, or nothing more will come. */
  #isOver(now: number, unsent: number): boolean {
    return (unsent === 0 && this.#received >= this.#made) || now >= this.#end + GRACE_MS;
  }

  #finish(): void {
    this.#isRunning = false;
    const counts = {
      offered: this.#made + this.#refused,
      sent: this.#made,
      received: this.#received,
      refused: this.#refused,
      seconds: (this.#lastSent - this.#start) / 1000,
    };
    this.#memory.finish(this.#trial, counts, this.#sampled);
  }
}
