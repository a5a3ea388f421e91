/** The thread behind `DeviceThread`: polls the devices it was given, answers their control plane. */

import { allOf, ErrorCode, VirtioError } from '../errors.js';
import type { StopFlag } from '../lcore/command-word.js';
import type { LcoreContext } from '../lcore/context.js';
import { Idle, type IdlePolicy } from '../lcore/idle.js';
import { DmaMemory, type PageChoice } from '../memory/dma-memory.js';
import { DEFAULT_BUFFER_BYTES, PacketPool } from '../memory/packet-pool.js';
import { FeatureSet } from '../spec/features.js';
import type { MemoryRange } from '../spec/pci-function.js';
import { RingCounters } from './counters.js';
import type { DeviceEvent, GuestRegion, IotlbEntry, RingSetup } from './device-model.js';
import { GuestDevice } from './guest-device.js';
import { SCRATCH_BYTES } from './guest-queues.js';
import type { PairOnTheMove } from './pair.js';
import { PortModules } from './port-modules.js';
import type { BackendPortSpec } from './ports/backend-port.js';
import { SharedState } from './shared-state.js';

/** What a poll thread of the back-end is started with. */
export interface DeviceThreadData {
  readonly poolSize: number;
  readonly bufferBytes: number | undefined;
  readonly pages: PageChoice | undefined;
  readonly idle: IdlePolicy;
  /** Modules of ports to load at the start. */
  readonly modules: readonly string[];
}

/** An event of a device, as the thread reports it. */
export interface DeviceThreadEvent {
  readonly device: number;
  readonly event: DeviceEvent;
}

/** The requests of a device thread, by type: what goes in (the answer is what the handler returns). */
export interface DeviceRequests {
  /** Loads a port's module; while that takes, nothing is polled. */
  'load-port': { module: string };
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
  'set-features': { device: number; words: number[] };
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
  'reset-device': { device: number };
  'remove-device': { device: number };
}

export async function lcoreMain({ stop, data, emit }: LcoreContext): Promise<void> {
  const { poolSize, bufferBytes = DEFAULT_BUFFER_BYTES, pages, idle: policy, modules } = data as DeviceThreadData;
  const ports = new PortModules();
  for (const module of modules) await ports.load(module);
  using memory = DmaMemory.allocate({ bytes: poolSize * bufferBytes + SCRATCH_BYTES, pages });
  const pool = PacketPool.create(memory, { size: poolSize, bufferBytes });
  const scratchAt = memory.take(SCRATCH_BYTES, 64);
  const scratch = { poolOffset: scratchAt, words: new Uint32Array(memory.buffer, scratchAt, SCRATCH_BYTES / 4) };
  const devices = new Map<number, GuestDevice>();
  // The loop walks an array: a map's iterator would be allocated every turn.
  let polled: readonly GuestDevice[] = [];

  const handle = <T extends keyof DeviceRequests>(type: T, handler: (request: DeviceRequests[T]) => unknown): void =>
    stop.onRequest(type, handler as (payload: never) => unknown);
  const device = (number: number): GuestDevice => {
    const found = devices.get(number);
    if (found === undefined) throw new VirtioError(ErrorCode.WRONG_STATE, `device ${number} is not on this thread`);
    return found;
  };

  handle('load-port', ({ module }) => ports.want(module));
  handle('add-device', ({ device: number, port, queuePairs, counters, config, shared, pairs, ...states }) => {
    const report = (event: DeviceEvent): void => emit({ device: number, event } satisfies DeviceThreadEvent);
    const context = { pool, queuePairs, pairs, report: (reason: string) => report({ type: 'port-failed', reason }) };
    const made = ports.of(port.module).createPort(context, port.options as never);
    try {
      devices.set(
        number,
        new GuestDevice({ pool, scratch }, made, queuePairs, new RingCounters(counters), report, {
          config: new Uint8Array(config),
          ...states,
          shared: new SharedState(shared),
          pairs,
        }),
      );
    } catch (error) {
      made.close();
      throw error;
    }
    polled = [...devices.values()];
  });
  handle('set-features', ({ device: number, words }) => device(number).setFeatures(FeatureSet.fromWords(words)));
  handle('set-memory', ({ device: number, regions }) => device(number).setMemory(regions));
  handle('start-ring', ({ device: number, ring, setup }) => device(number).startRing(ring, setup));
  handle('enable-ring', ({ device: number, ring, enabled }) => device(number).enableRing(ring, enabled));
  handle('stop-ring', ({ device: number, ring }) => device(number).stopRing(ring));
  handle('set-log', ({ device: number, log }) => device(number).setLog(log));
  handle('update-iotlb', ({ device: number, entry }) => device(number).updateIotlb(entry));
  handle('invalidate-iotlb', ({ device: number, iova, bytes }) => device(number).invalidateIotlb(iova, bytes));
  handle('send-rarp', ({ device: number, macAddress }) => device(number).sendRarp(macAddress));
  handle('release-pair', ({ device: number, pair }) => device(number).releasePair(pair));
  handle('adopt-pair', ({ device: number, pair, state }) => device(number).adoptPair(pair, state));
  handle('reset-device', ({ device: number }) => device(number).reset());
  handle('remove-device', ({ device: number }) => {
    const removed = devices.get(number);
    // First of all: a device that fails to close must not be polled any more.
    devices.delete(number);
    polled = [...devices.values()];
    removed?.close();
  });

  try {
    const idle = new Idle(policy, stop);
    do {
      await ports.loadWanted();
      pollLoop(stop, idle, ports, () => polled);
    } while (ports.areWanted);
  } finally {
    allOf([...devices.values()].map((left) => () => left.close()));
  }
}

/** Polls until the thread is to end, or a port's module is to be loaded. */
function pollLoop(stop: StopFlag, idle: Idle, ports: PortModules, devices: () => readonly GuestDevice[]): void {
  while (!stop.requested && !ports.areWanted) {
    const polled = devices();
    let moved = 0;
    for (let index = 0; index < polled.length; index++) moved += polled[index]!.poll();
    idle.turn(moved);
  }
}
