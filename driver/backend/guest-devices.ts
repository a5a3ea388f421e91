/** The devices that one thread runs, as their control plane adds them, sets them up and takes them away. */

import { allOf, ErrorCode, VirtioError } from '../errors.js';
import { FeatureSet } from '../spec/features.js';
import type { MemoryRange } from '../spec/pci-function.js';
import { RingCounters } from './counters.js';
import type { DeviceEvent, GuestRegion, IotlbEntry, RingSetup } from './device-model.js';
import { GuestDevice } from './guest-device.js';
import type { DeviceResources } from './guest-queues.js';
import type { RingOnTheMove } from './guest-rings.js';
import type { PairOnTheMove } from './pair.js';
import type { BackendPortModule, BackendPortSpec } from './ports/backend-port.js';
import { SharedState } from './shared-state.js';

/** An event of a device, as the thread reports it. */
export interface DeviceThreadEvent {
  readonly device: number;
  readonly event: DeviceEvent;
}

/** What is asked of devices, by type: what goes in (the answer is what the handler returns). */
export interface DeviceRequests {
  'add-device': {
    device: number;
    port: BackendPortSpec;
    queuePairs: number;
    counters: SharedArrayBuffer;
    /** The live configuration space. */
    config: SharedArrayBuffer;
    /** The settings of the receive filter. */
    filter: SharedArrayBuffer;
    /** Where packets are steered to. */
    steering: SharedArrayBuffer;
    /** How often the guest wants to be told. */
    coalescing: SharedArrayBuffer;
    shared: SharedArrayBuffer;
    /** Those that are on this thread. */
    pairs: readonly number[];
  };
  /** `joins`: the device has run on other threads before. */
  'set-features': { device: number; words: number[]; joins: boolean };
  'set-memory': { device: number; regions: readonly GuestRegion[] };
  'start-ring': { device: number; ring: number; setup: RingSetup };
  'enable-ring': { device: number; ring: number; enabled: boolean };
  'stop-ring': { device: number; ring: number };
  'set-log': { device: number; log: MemoryRange | undefined };
  'update-iotlb': { device: number; entry: IotlbEntry };
  'invalidate-iotlb': { device: number; iova: bigint; bytes: bigint };
  'send-rarp': { device: number; macAddress: Uint8Array };
  'release-pair': { device: number; pair: number };
  'adopt-pair': { device: number; pair: number; state: PairOnTheMove };
  'release-ring': { device: number; ring: number };
  'adopt-ring': { device: number; ring: number; state: RingOnTheMove };
  'reset-device': { device: number };
  'remove-device': { device: number };
}

type Handlers = { readonly [T in keyof DeviceRequests]: (request: DeviceRequests[T]) => unknown };

export interface GuestDevicesOptions {
  readonly resources: DeviceResources;
  /** Finds the module of a port. @throws VirtioError INVALID_ARGUMENT where there is none */
  moduleOf(module: string): BackendPortModule;
  emit(event: DeviceThreadEvent): void;
}

export class GuestDevices {
  /** All of them. The poll loop walks an array: a map's iterator would be allocated every turn. */
  all: readonly GuestDevice[] = [];
  readonly #options: GuestDevicesOptions;
  readonly #devices = new Map<number, GuestDevice>();
  readonly #handlers: Handlers = {
    'add-device': (request) => this.#add(request),
    'set-features': ({ device, words, joins }) => this.#device(device).setFeatures(FeatureSet.fromWords(words), joins),
    'set-memory': ({ device, regions }) => this.#device(device).setMemory(regions),
    'start-ring': ({ device, ring, setup }) => this.#device(device).startRing(ring, setup),
    'enable-ring': ({ device, ring, enabled }) => this.#device(device).enableRing(ring, enabled),
    'stop-ring': ({ device, ring }) => this.#device(device).stopRing(ring),
    'set-log': ({ device, log }) => this.#device(device).setLog(log),
    'update-iotlb': ({ device, entry }) => this.#device(device).updateIotlb(entry),
    'invalidate-iotlb': ({ device, iova, bytes }) => this.#device(device).invalidateIotlb(iova, bytes),
    'send-rarp': ({ device, macAddress }) => this.#device(device).sendRarp(macAddress),
    'release-pair': ({ device, pair }) => this.#device(device).releasePair(pair),
    'adopt-pair': ({ device, pair, state }) => this.#device(device).adoptPair(pair, state),
    'release-ring': ({ device, ring }) => this.#device(device).releaseRing(ring),
    'adopt-ring': ({ device, ring, state }) => this.#device(device).adoptRing(ring, state),
    'reset-device': ({ device }) => this.#device(device).reset(),
    'remove-device': ({ device }) => this.#remove(device),
  };

  constructor(options: GuestDevicesOptions) {
    this.#options = options;
  }

  /** Has the requests of all types answered here. */
  serve(onRequest: (type: string, handler: (payload: never) => unknown) => void): void {
    for (const [type, handler] of Object.entries(this.#handlers)) onRequest(type, handler);
  }

  /** Answers one request. @throws what the device throws; VirtioError WRONG_STATE for a device that is not here */
  answer<T extends keyof DeviceRequests>(type: T, request: DeviceRequests[T]): unknown {
    return this.#handlers[type](request);
  }

  close(): void {
    const left = this.all;
    this.#devices.clear();
    this.all = [];
    allOf(left.map((device) => () => device.close()));
  }

  #device(number: number): GuestDevice {
    const found = this.#devices.get(number);
    if (found === undefined) throw new VirtioError(ErrorCode.WRONG_STATE, `device ${number} is not on this thread`);
    return found;
  }

  #add({ device, port, queuePairs, counters, config, shared, pairs, ...states }: DeviceRequests['add-device']): void {
    const { resources, emit } = this.#options;
    const report = (event: DeviceEvent): void => emit({ device, event });
    const context = {
      pool: resources.pool,
      queuePairs,
      pairs,
      report: (reason: string) => report({ type: 'port-failed', reason }),
    };
    const made = this.#options.moduleOf(port.module).createPort(context, port.options as never);
    try {
      const options = { config: new Uint8Array(config), ...states, shared: new SharedState(shared), pairs };
      this.#devices.set(
        device,
        new GuestDevice(resources, made, queuePairs, new RingCounters(counters), report, options),
      );
    } catch (error) {
      made.close();
      throw error;
    }
    this.all = [...this.#devices.values()];
  }

  #remove(number: number): void {
    const removed = this.#devices.get(number);
    // First of all: a device that fails to close must not be polled any more.
    this.#devices.delete(number);
    this.all = [...this.#devices.values()];
    removed?.close();
  }
}
