/**
 * The back-end's own device on the thread of the test, with a recorder in each of its rings: behind an emulated function or
 * a vhost-user connection, both ends are under the rules of the specification at every step.
 */

import { RingCounters } from '../../../driver/backend/counters.js';
import type { DeviceEvent, DeviceModel, GuestRegion, RingSetup } from '../../../driver/backend/device-model.js';
import { GuestDevice } from '../../../driver/backend/guest-device.js';
import { HASH_TYPES } from '../../../driver/backend/packet-hash.js';
import { createPort } from '../../../driver/backend/ports/echo.js';
import { STEERING_TABLE_MOST } from '../../../driver/backend/receive-steering.js';
import { TOEPLITZ_KEY_BYTES } from '../../../driver/backend/toeplitz-hash.js';
import { Feature, FeatureSet } from '../../../driver/spec/features.js';
import { controlqIndex, NetStatus, virtioNetConfig } from '../../../driver/spec/net-config.js';
import { MAX_QUEUE_SIZE } from '../../../driver/spec/ring.js';
import { native } from '../../../native/index.js';
import { HandThread } from '../hand-guest.js';
import { ReachableMemory } from '../lying-device.js';
import type { CommandedState } from './control-rules.js';
import { PackedRingRules } from './packed-rules.js';
import type { RingRules, RuledRing } from './ring-rules.js';
import { SplitRingRules } from './split-rules.js';
import { Violations } from './violations.js';

export interface RecordedDeviceOptions {
  readonly offered: FeatureSet;
  readonly queuePairs?: number;
  readonly maxRingSize?: number;
  readonly mtu?: number;
}

interface RecordedRing {
  readonly setup: RingSetup;
  readonly rules: RingRules;
}

/** Sends every packet back. */
export class RecordedDevice implements DeviceModel {
  onEvent: ((event: DeviceEvent) => void) | undefined;
  readonly offered: FeatureSet;
  readonly maxQueuePairs: number;
  readonly maxRingSize: number;
  readonly config = new Uint8Array(virtioNetConfig.bytes);
  readonly violations = new Violations();
  readonly events: DeviceEvent[] = [];
  readonly memory = new ReachableMemory();
  /** Chains that were seen in the rings that have ended. */
  #seen = 0;
  readonly #thread = new HandThread();
  readonly #guest: GuestDevice;
  readonly #rings = new Map<number, RecordedRing>();
  readonly #enabled = new Set<number>();
  readonly #mtu: number | undefined;
  #state: CommandedState;

  constructor({ offered, queuePairs = 1, maxRingSize = MAX_QUEUE_SIZE, mtu }: RecordedDeviceOptions) {
    this.offered = offered;
    this.maxQueuePairs = queuePairs;
    this.maxRingSize = maxRingSize;
    this.#mtu = mtu;
    this.config.set([2, 0, 0, 0, 0, 1], virtioNetConfig.fields.mac.offset);
    virtioNetConfig.write(new DataView(this.config.buffer), {
      status: NetStatus.LINK_UP,
      max_virtqueue_pairs: queuePairs,
      mtu: mtu ?? 0,
      rss_max_key_size: TOEPLITZ_KEY_BYTES,
      rss_max_indirection_table_length: STEERING_TABLE_MOST,
      supported_hash_types: HASH_TYPES,
    });
    this.#state = this.#stateFor(FeatureSet.EMPTY);
    const port = createPort({ pool: this.#thread.pool, queuePairs, report: () => {} }, {});
    const emit = (event: DeviceEvent): void => {
      this.events.push(event);
      this.onEvent?.(event);
    };
    const counters = RingCounters.create(controlqIndex(queuePairs) + 1);
    this.#guest = new GuestDevice(this.#thread, port, queuePairs, counters, emit, { config: this.config });
  }

  /** Chains that the driver has made available so far. */
  get published(): number {
    return [...this.#rings.values()].reduce((sum, { rules }) => sum + rules.published, this.#seen);
  }

  /** Lets the device take turns; both ends are looked at in between. Returns how many packets moved. */
  poll(turns = 1): number {
    let moved = 0;
    for (let turn = 0; turn < turns; turn++) {
      this.look();
      const before = new Map([...this.#rings].map(([ring, { setup }]) => [ring, taken(setup.callFd)]));
      moved += this.#guest.poll();
      for (const [ring, { rules, setup }] of this.#rings) {
        const calls = taken(setup.callFd);
        rules.afterDevice(calls);
        // What was looked at is for the driver to see.
        if ((calls ?? 0) + (before.get(ring) ?? 0) > 0) native.signalEventFd(setup.callFd!);
      }
    }
    return moved;
  }

  /** Has the device ask for kicks, or for none: as one does that goes to sleep, and wakes up. */
  wantKicks(wanted: boolean): void {
    this.look();
    for (const { rules } of this.#rings.values()) rules.wantKicks(wanted);
  }

  async setFeatures(features: FeatureSet): Promise<void> {
    this.#state = this.#stateFor(features);
    this.#guest.setFeatures(features);
  }
  async setMemory(regions: readonly GuestRegion[]): Promise<void> {
    this.memory.map(regions);
    this.#guest.setMemory(regions);
  }
  async startRing(ring: number, setup: RingSetup): Promise<void> {
    const { size, desc, avail, used, base } = setup;
    const isControl = ring === controlqIndex(this.maxQueuePairs);
    // With a control queue a driver begins with one pair (virtio 1.2 §5.1.6.5.5).
    if (isControl) this.#state.activePairs = 1;
    const ruled: RuledRing = {
      ...{ ring, size, desc, avail, used, base },
      kind: isControl ? 'control' : ring % 2 === 0 ? 'receive' : 'transmit',
      memory: this.memory,
      state: this.#state,
      mtu: this.#state.features.has(Feature.MTU) ? this.#mtu : undefined,
      violations: this.violations,
    };
    const isPacked = this.#state.features.has(Feature.RING_PACKED);
    const rules = isPacked ? new PackedRingRules(ruled) : new SplitRingRules(ruled);
    this.#guest.startRing(ring, setup);
    rules.afterDevice();
    this.#rings.set(ring, { setup, rules });
  }
  async enableRing(ring: number, enabled: boolean): Promise<void> {
    if (enabled) this.#enabled.add(ring);
    else this.#enabled.delete(ring);
    // Where commands go to the front-end, it tells by this which pairs are on.
    if (!this.#rings.has(controlqIndex(this.maxQueuePairs))) {
      this.#state.activePairs = [...this.#enabled].filter((each) => each % 2 === 1).length;
    }
    this.#guest.enableRing(ring, enabled);
  }
  async stopRing(ring: number): Promise<number> {
    this.#forget(ring);
    return this.#guest.stopRing(ring);
  }
  async setLog(): Promise<void> {}
  async updateIotlb(): Promise<void> {}
  async invalidateIotlb(): Promise<void> {}
  async setMtu(): Promise<void> {}
  async sendRarp(): Promise<void> {}

  async reset(): Promise<void> {
    for (const ring of [...this.#rings.keys()]) this.#forget(ring);
    this.#enabled.clear();
    this.#state = this.#stateFor(FeatureSet.EMPTY);
    this.#guest.reset();
    this.#guest.setMemory([]);
    this.memory.close();
  }

  async close(): Promise<void> {
    await this.reset();
    this.#guest.close();
    this.#thread[Symbol.dispose]();
  }

  #stateFor(features: FeatureSet): CommandedState {
    const { maxQueuePairs: queuePairs, config } = this;
    return { features, queuePairs, config, activePairs: queuePairs };
  }

  /** Looks at what the driver has done so far. */
  look(): void {
    for (const { rules, setup } of this.#rings.values()) rules.afterDriver(taken(setup.kickFd));
  }

  #forget(ring: number): void {
    this.#seen += this.#rings.get(ring)?.rules.published ?? 0;
    this.#rings.delete(ring);
  }
}

/** How often an eventfd was signalled since the last look; undefined where there is none. */
const taken = (fd: number | undefined): number | undefined =>
  fd === undefined ? undefined : Number(native.drainEventFd(fd));
