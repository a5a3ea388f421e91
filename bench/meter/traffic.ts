/** The generator and receiver of trials, on a poll thread: the same on either side of the wire. */

import { type Burst, ErrorCode, PacketField, type PacketPool, VirtioError } from 'virtio-pmd/thread';

import { GRACE_MS, LAG_MAX, SAMPLES_MAX, type TrialMemory } from './trial.js';

/** Words 0 to 2 of a packet, little-endian: to everybody, from 02:00:00:00:00:01. */
const ADDRESS_WORDS = [0xffff_ffff, 0x0002_ffff, 0x0100_0000] as const;
/** The EtherType for local experiments (IEEE 802), as it is in a little-endian word; the trial's number is above it. */
const ETHERTYPE = 0xb588;
const TRIAL_SHIFT = 16;
/** Words that say which trial a packet belongs to, and when it was due: nanoseconds of the trial, 32 bits of them. */
const AT = { TRIAL: 3, DUE: 4 } as const;
const NANOSECONDS_PER_MS = 1e6;
const { DATA_OFFSET, SEGMENT_LENGTH, PACKET_LENGTH, WORDS } = PacketField;

/**
 * Runs the trials that are asked for in a `TrialMemory`.
 *
 * A packet's time counts from when it was due, not from when there was room for it: what waits because the other side
 * stands still counts as late (no "coordinated omission").
 */
export class MeterTraffic {
  readonly #memory: TrialMemory;
  readonly #pool: PacketPool;
  readonly #samples: Uint32Array;
  /** The trial that runs, or ran last. */
  #trial = 0;
  /** Word 3 of its packets. */
  #mark = 0;
  #isRunning = false;
  #bytes = 0;
  #perMs = 0;
  #nanosecondsApart = 0;
  #start = 0;
  #lengthMs = 0;
  #lastSentMs = 0;
  /** Packets that were put into a burst, and those that had no room for too long. */
  #made = 0;
  #refused = 0;
  #received = 0;
  #sampled = 0;
  /** Every so many-th packet is timed. */
  #stride = 1;

  /** @throws VirtioError INVALID_ARGUMENT for a pool whose packets do not begin at whole words */
  constructor(memory: TrialMemory, pool: PacketPool) {
    if (((pool.offset | pool.bufferBytes | pool.headroom) & 3) !== 0) {
      const value = pool.headroom;
      throw new VirtioError(ErrorCode.INVALID_ARGUMENT, "the meter's packets begin at whole words", { value });
    }
    this.#memory = memory;
    this.#samples = memory.samples;
    this.#pool = pool;
  }

  /** Adds the packets that are due to the burst, as far as it has room. Once a turn: begins and ends trials, too. */
  fill(burst: Burst): void {
    if (!this.#isRunning && !this.#begin()) return;
    const elapsed = performance.now() - this.#start;
    const isSent = elapsed >= this.#lengthMs;
    const due = Math.floor((isSent ? this.#lengthMs : elapsed) * this.#perMs);
    let waiting = due - this.#made - this.#refused;
    if (isSent && this.#isOver(elapsed, waiting + burst.count)) {
      this.#refused += waiting;
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
    this.#write(burst.handles, first, count);
    this.#lastSentMs = elapsed;
  }

  /** Counts and times the packets of the burst, and frees them. */
  take(burst: Burst): void {
    const nanoseconds = (performance.now() - this.#start) * NANOSECONDS_PER_MS;
    const { fields, words, offset, bufferBytes } = this.#pool;
    const { handles, count } = burst;
    const mark = this.#mark;
    for (let index = 0; index < count; index++) {
      const handle = handles[index]!;
      const start = (offset + Math.imul(handle, bufferBytes) + fields[handle * WORDS + DATA_OFFSET]!) >>> 2;
      // What is left of an earlier trial.
      if ((words[start + AT.TRIAL]! | 0) !== mark) continue;
      if (this.#received++ % this.#stride === 0 && this.#sampled < SAMPLES_MAX) {
        this.#samples[this.#sampled++] = nanoseconds - words[start + AT.DUE]!;
      }
    }
    burst.free();
  }

  #begin(): boolean {
    const requested = this.#memory.requested;
    if (requested === this.#trial) return false;
    const { rate, seconds, bytes } = this.#memory.plan;
    this.#trial = requested;
    this.#mark = (requested << TRIAL_SHIFT) | ETHERTYPE;
    this.#bytes = bytes;
    this.#perMs = rate / 1000;
    this.#nanosecondsApart = 1e9 / rate;
    this.#stride = Math.ceil((rate * seconds) / SAMPLES_MAX);
    this.#made = this.#refused = this.#received = this.#sampled = 0;
    this.#start = performance.now();
    this.#lengthMs = seconds * 1000;
    this.#lastSentMs = 0;
    this.#isRunning = true;
    return true;
  }

  /** Makes packets of new buffers. */
  #write(handles: Uint32Array, first: number, count: number): void {
    const { fields, words, offset, bufferBytes, headroom } = this.#pool;
    const [bytes, mark, apart] = [this.#bytes, this.#mark, this.#nanosecondsApart];
    let number = this.#made + this.#refused;
    for (let index = first; index < first + count; index++) {
      const handle = handles[index]!;
      fields[handle * WORDS + SEGMENT_LENGTH] = bytes;
      fields[handle * WORDS + PACKET_LENGTH] = bytes;
      const start = (offset + Math.imul(handle, bufferBytes) + headroom) >>> 2;
      words[start] = ADDRESS_WORDS[0];
      words[start + 1] = ADDRESS_WORDS[1];
      words[start + 2] = ADDRESS_WORDS[2];
      words[start + AT.TRIAL] = mark;
      words[start + AT.DUE] = number++ * apart;
    }
    this.#made += count;
  }

  /** Everything was sent and is back, or nothing more will come. */
  #isOver(elapsed: number, unsent: number): boolean {
    return (unsent === 0 && this.#received >= this.#made) || elapsed >= this.#lengthMs + GRACE_MS;
  }

  #finish(): void {
    this.#isRunning = false;
    const counts = {
      offered: this.#made + this.#refused,
      sent: this.#made,
      received: this.#received,
      refused: this.#refused,
      seconds: this.#lastSentMs / 1000,
    };
    this.#memory.finish(this.#trial, counts, this.#sampled);
  }
}
