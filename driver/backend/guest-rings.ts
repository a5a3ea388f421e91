/** The rings of one guest on a poll thread: opened, closed, broken, waiting for translations. */

import { CopyDirection, native } from '../../native/index.js';
import { ErrorCode, VirtioError } from '../errors.js';
import type { DeviceRing } from '../ring/ends.js';
import type { MissListener, TableScratch } from '../ring/indirect-tables.js';
import { LoggedDeviceRing, packedRingLog, type RingLog, splitRingLog } from '../ring/logged-device-ring.js';
import type { PackedDeviceRingOptions } from '../ring/packed-device-ring.js';
import { Feature, type FeatureSet } from '../spec/features.js';
import type { DeviceEvent, GuestRegion, IotlbEntry, RingSetup } from './device-model.js';
import { type GuestMemory, touchesRing } from './guest-memory.js';
import type { OpenInflight } from './inflight-mapping.js';
import { openPackedRing } from './packed-ring-resume.js';
import { DEVICE_BURST } from './ring-context.js';
import { openSplitRing } from './ring-resume.js';
import { checkRingSetup } from './ring-setup.js';

/** A ring and how far it has come. */
interface RingState {
  setup: RingSetup | undefined;
  enabled: boolean;
  /** Next available entry while the ring is stopped. */
  base: number;
  ring: DeviceRing | undefined;
  /** Under the ring, where the front-end keeps a region for it. */
  inflight: OpenInflight | undefined;
  reported: boolean;
  /** A buffer's translation is missing: the ring is not polled until it comes. */
  isParked: boolean;
  /** The translation that was asked for last, until something is said of it. */
  missed: bigint | undefined;
}

/** A ring on its way to another thread. */
export interface RingOnTheMove {
  readonly setup: RingSetup | undefined;
  readonly enabled: boolean;
  readonly base: number;
  readonly reported: boolean;
}

/** What is done with the rings that are open. */
export interface RingHost {
  /** The ring can be used, in place of one that was opened before. */
  opened(index: number, ring: DeviceRing, setup: RingSetup, features: FeatureSet): void;
  /** Nothing of it may be touched any more. It `comesBack` when its memory does, where only that is swapped. */
  closed(index: number, comesBack: boolean): void;
  /** The ring is not to be polled, or again. */
  parked(index: number, isParked: boolean): void;
  emit(event: DeviceEvent): void;
}

export class GuestRings {
  readonly #memory: GuestMemory;
  readonly #scratch: TableScratch;
  readonly #host: RingHost;
  readonly #states: readonly RingState[];
  #features: FeatureSet | undefined;
  #faultsSeen = 0;

  constructor(count: number, memory: GuestMemory, scratch: TableScratch, host: RingHost) {
    this.#memory = memory;
    this.#scratch = scratch;
    this.#host = host;
    this.#states = Array.from({ length: count }, newState);
  }

  setFeatures(features: FeatureSet): void {
    this.#features = features;
    this.#memory.setTranslated(features.has(Feature.ACCESS_PLATFORM));
  }

  get #isPacked(): boolean {
    return this.#features?.has(Feature.RING_PACKED) === true;
  }

  isEnabled(index: number): boolean {
    return this.#states[index]!.enabled;
  }

  enable(index: number, enabled: boolean): void {
    this.#state(index).enabled = enabled;
  }

  /** Swaps the memory table: rings that run are opened again over the new one. */
  setMemory(regions: readonly GuestRegion[]): void {
    for (const [index, state] of this.#states.entries()) this.#leave(index, state);
    this.#memory.setRegions(regions);
    for (const [index, state] of this.#states.entries()) this.#reopen(index, state);
  }

  /** @throws VirtioError as `DeviceModel.startRing` says; the ring is stopped then */
  start(index: number, setup: RingSetup): void {
    const state = this.#state(index);
    this.#close(index, state);
    state.setup = undefined;
    state.missed = undefined;
    checkRingSetup(index, this.#isPacked, setup);
    const missing = this.#memory.missingOfRing(setup, this.#isPacked);
    if (missing !== undefined) throw noTranslation(index, missing.iova);
    this.#open(index, state, setup);
    state.setup = setup;
    state.reported = false;
  }

  /** Stops a ring; returns the index of its next available entry. Nothing of it is touched afterwards. */
  stop(index: number): number {
    const state = this.#state(index);
    this.#close(index, state);
    state.setup = undefined;
    return state.base;
  }

  /** Stops a ring, for another thread to `adopt` it. */
  release(index: number): RingOnTheMove {
    const state = this.#state(index);
    const { setup, enabled, reported, ring } = state;
    const isBroken = ring?.broken !== undefined;
    if (isBroken) this.#report(index, state, ring!.broken!);
    const base = this.stop(index);
    Object.assign(state, newState());
    return { setup: isBroken ? undefined : setup, enabled, base, reported: reported || isBroken };
  }

  /** Goes on with a ring that another thread let go of. */
  adopt(index: number, { setup, enabled, base, reported }: RingOnTheMove): void {
    const state = this.#state(index);
    Object.assign(state, newState(), { setup, enabled, base, reported });
    this.#reopen(index, state);
  }

  reset(): void {
    for (const [index, state] of this.#states.entries()) {
      this.#close(index, state);
      Object.assign(state, newState());
    }
    this.#features = undefined;
    this.#memory.reset();
  }

  /** Rings that run go on over a log, or without one: nothing is lost. */
  setLog(log: Parameters<GuestMemory['setLog']>[0]): void {
    this.#memory.setLog(log);
    for (const [index, state] of this.#states.entries()) {
      if (state.ring === undefined || state.setup === undefined) continue;
      if (this.#memory.missingOfRing(state.setup, this.#isPacked) !== undefined) {
        this.#leave(index, state);
        this.#reopen(index, state);
        continue;
      }
      const plain = state.ring instanceof LoggedDeviceRing ? state.ring.inner : state.ring;
      this.#put(index, state, plain, state.setup);
    }
  }

  addTranslation(entry: IotlbEntry): void {
    this.#memory.addTranslation(entry);
    for (const [index, state] of this.#states.entries()) {
      if (isIn(state.missed, entry.iova, entry.bytes)) state.missed = undefined;
      this.#goOn(index, state);
    }
  }

  removeTranslations(iova: bigint, bytes: bigint): void {
    this.#memory.removeTranslations(iova, bytes);
    for (const [index, state] of this.#states.entries()) {
      if (isIn(state.missed, iova, bytes)) state.missed = undefined;
      if (state.setup !== undefined && touchesRing(state.setup, this.#isPacked, iova, bytes)) this.#leave(index, state);
      this.#goOn(index, state);
    }
  }

  /** A ring waits for a buffer's translation, which is asked for unless it has been. */
  miss(index: number, low: number, high: number, bytes: number, direction: CopyDirection): void {
    const state = this.#state(index);
    const address = (BigInt(high) << 32n) | BigInt(low);
    const iova = this.#memory.missing(address, bytes, direction) ?? address;
    state.isParked = true;
    this.#host.parked(index, true);
    this.#ask(state, iova, direction);
  }

  /** Rare looks: rings that broke, memory that vanished. */
  check(): void {
    const states = this.#states;
    const faults = this.#memory.engine.faults();
    let isLost = faults > this.#faultsSeen;
    // By index: an iterator is garbage, and this is in the poll loop.
    for (let index = 0; index < states.length; index++) {
      const state = states[index]!;
      const reason = state.ring?.broken;
      if (reason !== undefined) this.#report(index, state, reason);
      if (state.inflight?.isLost() === true) isLost = true;
    }
    if (isLost) {
      this.#faultsSeen = faults;
      for (let index = 0; index < states.length; index++) this.#close(index, states[index]!);
      this.#host.emit({ type: 'memory-fault' });
    }
  }

  /** Breaks every ring that runs. `deviceFailure` says why, where it was thrown. */
  fail(reason: string): void {
    for (const [index, state] of this.#states.entries()) {
      if (state.ring === undefined) continue;
      this.#close(index, state);
      this.#break(index, state, reason);
    }
  }

  /** Tries again what waits for translations. */
  #goOn(index: number, state: RingState): void {
    if (state.setup === undefined) return;
    if (state.ring === undefined) {
      this.#reopen(index, state);
    } else if (state.isParked) {
      state.isParked = false;
      this.#host.parked(index, false);
    }
  }

  /** Opens a ring that has a set-up where it stood; asks for what its own parts lack, breaks it where it has no place. */
  #reopen(index: number, state: RingState): void {
    if (state.setup === undefined) return;
    const missing = this.#memory.missingOfRing(state.setup, this.#isPacked);
    if (missing !== undefined) {
      this.#ask(state, missing.iova, missing.direction);
      return;
    }
    try {
      this.#open(index, state, { ...state.setup, base: state.base });
    } catch (error) {
      this.#break(index, state, `its memory is gone: ${String(error)}`);
    }
  }

  #open(index: number, state: RingState, setup: RingSetup): void {
    const features = this.#features;
    if (features === undefined)
      throw new VirtioError(ErrorCode.WRONG_STATE, `ring ${index} starts before features were set`);
    const isTransmitq = (index & 1) === 1;
    const onMiss: MissListener = (low, high, bytes, direction) => this.miss(index, low, high, bytes, direction);
    const options: PackedDeviceRingOptions = {
      engine: this.#memory.engine,
      burst: DEVICE_BURST,
      base: setup.base,
      eventIndex: features.has(Feature.EVENT_IDX),
      scratch: features.has(Feature.INDIRECT_DESC) ? this.#scratch : undefined,
      onMiss: this.#memory.isTranslated ? onMiss : undefined,
      readsTables: isTransmitq,
      // What comes from the guest has no lengths to tell. A region that outlives the device is told of each chain.
      returnsBatches: isTransmitq && features.has(Feature.IN_ORDER) && setup.inflight === undefined,
    };
    const resync = (reason: string): void => this.#host.emit({ type: 'ring-resync', ring: index, reason });
    const open = this.#isPacked ? openPackedRing : openSplitRing;
    const { ring, inflight } = open(index, setup, options, resync);
    state.inflight = inflight;
    this.#put(index, state, ring, setup);
  }

  /** Hands a ring over, with its writes logged where that is asked for. */
  #put(index: number, state: RingState, plain: DeviceRing, setup: RingSetup): void {
    const log = this.#logOf(setup);
    const ring = log === undefined ? plain : new LoggedDeviceRing(plain, log);
    state.ring = ring;
    this.#host.opened(index, ring, setup, this.#features!);
    if (state.isParked) this.#host.parked(index, true);
  }

  /** What marks the writes to a ring; undefined where they are not logged. */
  #logOf({ size, desc, usedLog }: RingSetup): RingLog | undefined {
    const { engine, isLogged } = this.#memory;
    const used = isLogged ? this.#memory.logAddress(usedLog) : undefined;
    if (used === undefined) return undefined;
    if (!this.#isPacked) return splitRingLog(engine, size, Number(used));
    // A front-end names the place of what is the used ring on a split one: here that is the event suppression structure.
    return packedRingLog(engine, size, Number(this.#memory.logAddress(desc) ?? used), Number(used));
  }

  /** Closes a ring that is to be opened again; one that is broken stays so until it is started again. */
  #leave(index: number, state: RingState): void {
    const reason = state.ring?.broken;
    this.#close(index, state, reason === undefined);
    if (reason !== undefined) this.#break(index, state, reason);
  }

  /** Lets go of a ring's memory and remembers where it stood. */
  #close(index: number, state: RingState, comesBack = false): void {
    if (state.ring === undefined) return;
    state.base = state.ring.base;
    state.ring = undefined;
    state.inflight?.close();
    state.inflight = undefined;
    state.isParked = false;
    this.#host.closed(index, comesBack);
  }

  #ask(state: RingState, iova: bigint, direction: CopyDirection): void {
    if (state.missed === iova) return;
    state.missed = iova;
    this.#host.emit({ type: 'iotlb-miss', iova, access: direction === CopyDirection.FROM_GUEST ? 'read' : 'write' });
  }

  /** Has a ring stand still until it is started again. */
  #break(index: number, state: RingState, reason: string): void {
    this.#report(index, state, reason);
    state.setup = undefined;
  }

  /** Says, once, that a ring is broken. */
  #report(index: number, state: RingState, reason: string): void {
    if (state.reported) return;
    state.reported = true;
    if (state.setup?.errFd !== undefined) native.signalEventFd(state.setup.errFd);
    this.#host.emit({ type: 'ring-broken', ring: index, reason });
  }

  #state(index: number): RingState {
    const state = this.#states[index];
    if (state === undefined)
      throw new VirtioError(ErrorCode.INVALID_ARGUMENT, `there is no ring ${index}`, { value: index });
    return state;
  }
}

const newState = (): RingState => ({
  setup: undefined,
  enabled: false,
  base: 0,
  ring: undefined,
  inflight: undefined,
  reported: false,
  isParked: false,
  missed: undefined,
});

const isIn = (address: bigint | undefined, start: bigint, bytes: bigint): boolean =>
  address !== undefined && address >= start && address < start + bytes;

const noTranslation = (index: number, iova: bigint): VirtioError =>
  new VirtioError(
    ErrorCode.NO_TRANSLATION,
    `ring ${index} needs the translation of 0x${iova.toString(16)}, which is missing`,
    { value: iova, advice: 'ask the front-end for it, and start the ring again when it has come' },
  );

/** Why rings break when a port, or a defect of ours, has thrown on the poll thread. */
export const deviceFailure = (error: unknown): string =>
  `its device failed: ${error instanceof Error ? error.message : String(error)}`;
