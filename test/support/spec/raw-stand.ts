/** A ring whose two ends the test writes by hand, with a recorder in between: for traces that break a rule, and one that breaks none. */

import { PackedRingViews } from '../../../driver/ring/packed-views.js';
import { USED_INDEX, USED_RING } from '../../../driver/ring/split-views.js';
import { ControlAck } from '../../../driver/spec/control.js';
import { Feature, FeatureSet } from '../../../driver/spec/features.js';
import { virtioNetConfig } from '../../../driver/spec/net-config.js';
import { DescFlag } from '../../../driver/spec/ring.js';
import { BUFFERS, FILE_BYTES, fileOffset, RawRing, REGION_A, REGION_B } from '../hand-guest.js';
import { RawPackedRing } from '../hand-packed-ring.js';
import type { CommandedState } from './control-rules.js';
import { PackedRingRules } from './packed-rules.js';
import type { RingKind, RingRules, RuledRing } from './ring-rules.js';
import { SplitRingRules } from './split-rules.js';
import { Violations } from './violations.js';

export interface RawStandOptions {
  readonly kind?: RingKind;
  readonly ring?: number;
  /** Beside VERSION_1. */
  readonly features?: readonly Feature[];
  readonly mtu?: number;
  readonly activePairs?: number;
  readonly size?: number;
}

const HEADER_BYTES = 12;
const BUFFER_BYTES = 2048;
const PAIRS = 2;

/** A header of 12 bytes, and a frame behind it. */
export const packetOf = (frameBytes: number, ...header: readonly number[]): Uint8Array => {
  const bytes = new Uint8Array(HEADER_BYTES + frameBytes);
  bytes.set(header);
  return bytes;
};

/** What both formats have. */
abstract class RawStand {
  readonly memory = new ArrayBuffer(FILE_BYTES);
  readonly bytes = new Uint8Array(this.memory);
  readonly violations = new Violations();
  readonly size: number;
  protected readonly kind: RingKind;
  readonly state: CommandedState;
  readonly #options: RawStandOptions;

  constructor(options: RawStandOptions, format: readonly Feature[]) {
    const { kind = 'transmit', features = [], activePairs = PAIRS, size = 8 } = options;
    this.#options = options;
    this.kind = kind;
    this.size = size;
    const config = new Uint8Array(virtioNetConfig.bytes);
    virtioNetConfig.write(new DataView(config.buffer), {
      rss_max_indirection_table_length: 128,
      supported_hash_types: 7,
    });
    const accepted = FeatureSet.of(Feature.VERSION_1, ...format, ...features);
    this.state = { features: accepted, queuePairs: PAIRS, config, activePairs };
  }

  abstract readonly rules: RingRules;

  /** What a recorder is told of a ring at these places. */
  protected ruled(desc: bigint, avail: bigint, used: bigint, base: number): RuledRing {
    const { kind, size, state, violations } = this;
    const { ring = kind === 'receive' ? 0 : kind === 'transmit' ? 1 : 2 * PAIRS, mtu } = this.#options;
    const find = (address: bigint) => ({ buffer: this.memory, offset: fileOffset(address) });
    return { ring, kind, size, desc, avail, used, base, memory: { find }, state, mtu, violations };
  }

  /** The address of buffer `id`, of 2048 bytes. */
  buffer(id: number): bigint {
    return BUFFERS + BigInt(BUFFER_BYTES * id);
  }
  write(address: bigint, bytes: ArrayLike<number>): void {
    this.bytes.set(bytes, fileOffset(address));
  }

  /** The driver is done. */
  driver(kicks = 1): void {
    this.rules.afterDriver(kicks);
  }
  /** The device is done. */
  device(calls = 1): void {
    this.rules.afterDevice(calls);
  }
}

export class SplitStand extends RawStand {
  readonly ring: RawRing;
  readonly rules: SplitRingRules;
  #used = 0;

  /** @param before what is done to the memory before the recorder looks for the first time */
  constructor(options: RawStandOptions = {}, before?: (ring: RawRing) => void) {
    super(options, []);
    this.ring = new RawRing(this.memory, 0, this.size);
    before?.(this.ring);
    this.rules = new SplitRingRules(this.ruled(this.ring.desc, this.ring.avail, this.ring.used, 0));
  }

  /** Publishes a packet in one descriptor. */
  send(id: number, packet: Uint8Array = packetOf(60)): void {
    this.write(this.buffer(id), packet);
    this.ring.describe(id, this.buffer(id), packet.length, 0);
    this.ring.offer(id);
  }
  /** Publishes an empty buffer. */
  post(id: number, length = BUFFER_BYTES): void {
    this.ring.describe(id, this.buffer(id), length, DescFlag.WRITE);
    this.ring.offer(id);
  }
  /** Publishes a command of these bytes, with room for an ack. */
  command(...bytes: readonly number[]): void {
    this.write(this.buffer(0), bytes);
    this.ring.describe(0, this.buffer(0), bytes.length, DescFlag.NEXT, 1);
    this.ring.describe(1, REGION_B, 1, DescFlag.WRITE);
    this.ring.offer(0);
    this.driver();
  }
  answer(ack: number = ControlAck.OK, length = 1): void {
    this.write(REGION_B, [ack]);
    this.use(0, length);
    this.device();
  }

  /** Writes a used entry, and publishes it. */
  use(id: number, length = 0): void {
    const { views } = this.ring;
    const entry = USED_RING + 2 * (this.#used++ % this.size);
    views.usedEntries[entry] = id;
    views.usedEntries[entry + 1] = length;
    views.used[USED_INDEX] = this.#used;
  }
  /** As a device that has a packet for the guest. */
  deliver(id: number, packet: Uint8Array): void {
    this.write(this.buffer(id), packet);
    this.use(id, packet.length);
  }
}

export class PackedStand extends RawStand {
  readonly ring: RawPackedRing;
  readonly rules: PackedRingRules;
  #usedAt = 0;
  #usedWrap = true;

  constructor(options: RawStandOptions = {}) {
    super(options, [Feature.RING_PACKED]);
    const { size, memory } = this;
    const at = (part: number) => ({ buffer: memory, offset: fileOffset(REGION_A) + part });
    this.ring = new RawPackedRing(new PackedRingViews(size, at(0), at(16 * size), at(16 * size + 4)), REGION_A);
    this.rules = new PackedRingRules(this.ruled(this.ring.desc, this.ring.avail, this.ring.used, 0));
  }

  send(id: number, packet: Uint8Array = packetOf(60)): void {
    this.write(this.buffer(id), packet);
    this.ring.offer(id, { address: this.buffer(id), length: packet.length });
  }
  post(id: number, length = BUFFER_BYTES): void {
    this.ring.offer(id, { address: this.buffer(id), length, flags: DescFlag.WRITE });
  }

  /** Writes a used descriptor in the place of `entries` of them. */
  use(id: number, length = 0, entries = 1): void {
    const { ring } = this;
    const marks = this.#usedWrap ? DescFlag.AVAIL | DescFlag.USED : 0;
    ring.views.desc[4 * this.#usedAt + 2] = length;
    ring.views.desc[4 * this.#usedAt + 3] = (id | ((marks | (length > 0 ? DescFlag.WRITE : 0)) << 16)) >>> 0;
    this.#usedAt += entries;
    if (this.#usedAt >= this.size) {
      this.#usedAt -= this.size;
      this.#usedWrap = !this.#usedWrap;
    }
  }
  deliver(id: number, packet: Uint8Array): void {
    this.write(this.buffer(id), packet);
    this.use(id, packet.length);
  }
}
