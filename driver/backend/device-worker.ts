/** The thread behind `DeviceThread`: polls the devices it was given, answers their control plane. */

import type { StopFlag } from '../lcore/command-word.js';
import type { LcoreContext } from '../lcore/context.js';
import { Idle, type IdlePolicy } from '../lcore/idle.js';
import { DmaMemory } from '../memory/dma-memory.js';
import { PacketPool } from '../memory/packet-pool.js';
import { FeatureSet } from '../spec/features.js';
import { RingCounters } from './counters.js';
import type { DeviceEvent, GuestRegion, RingSetup } from './device-model.js';
import { GuestDevice, SCRATCH_BYTES } from './guest-device.js';
import type { BackendPortModule, BackendPortSpec } from './ports/backend-port.js';

/** What a poll thread of the back-end is started with. */
export interface DeviceThreadData {
  readonly poolSize: number;
  readonly bufferBytes: number;
  readonly idle: IdlePolicy;
  /** Modules of the ports that its devices may have: loaded at the start, for later there is no event loop. */
  readonly modules: readonly string[];
}

/** An event of a device, as the thread reports it. */
export interface DeviceThreadEvent {
  readonly device: number;
  readonly event: DeviceEvent;
}

/** The requests of a device thread, by type: what goes in (the answer is what the handler returns). */
export interface DeviceRequests {
  'add-device': { device: number; port: BackendPortSpec; queuePairs: number; counters: SharedArrayBuffer };
  'set-features': { device: number; words: number[] };
  'set-memory': { device: number; regions: readonly GuestRegion[] };
  'start-ring': { device: number; ring: number; setup: RingSetup };
  'enable-ring': { device: number; ring: number; enabled: boolean };
  'stop-ring': { device: number; ring: number };
  'reset-device': { device: number };
  'remove-device': { device: number };
}

export async function lcoreMain({ stop, data, emit }: LcoreContext): Promise<void> {
  const { poolSize, bufferBytes, idle: policy, modules } = data as DeviceThreadData;
  const loaded = new Map<string, BackendPortModule>();
  for (const module of modules) loaded.set(module, (await import(module)) as BackendPortModule);
  using memory = DmaMemory.allocate({ bytes: poolSize * bufferBytes + SCRATCH_BYTES });
  const pool = PacketPool.create(memory, { size: poolSize, bufferBytes });
  const scratchAt = memory.take(SCRATCH_BYTES, 64);
  const scratch = { poolOffset: scratchAt, words: new Uint32Array(memory.buffer, scratchAt, SCRATCH_BYTES / 4) };
  const devices = new Map<number, GuestDevice>();
  // The loop walks an array: a map's iterator would be allocated every turn.
  let polled: readonly GuestDevice[] = [];

  const handle = <T extends keyof DeviceRequests>(type: T, handler: (request: DeviceRequests[T]) => unknown): void =>
    stop.onRequest(type, handler as (payload: never) => unknown);
  const device = (number: number): GuestDevice => devices.get(number)!;

  handle('add-device', ({ device: number, port, queuePairs, counters }) => {
    const made = loaded.get(port.module)!.createPort({ pool, queuePairs }, port.options as never);
    const report = (event: DeviceEvent): void => emit({ device: number, event } satisfies DeviceThreadEvent);
    devices.set(number, new GuestDevice({ pool, scratch }, made, queuePairs, new RingCounters(counters), report));
    polled = [...devices.values()];
  });
  handle('set-features', ({ device: number, words }) => device(number).setFeatures(FeatureSet.fromWords(words)));
  handle('set-memory', ({ device: number, regions }) => device(number).setMemory(regions));
  handle('start-ring', ({ device: number, ring, setup }) => device(number).startRing(ring, setup));
  handle('enable-ring', ({ device: number, ring, enabled }) => device(number).enableRing(ring, enabled));
  handle('stop-ring', ({ device: number, ring }) => device(number).stopRing(ring));
  handle('reset-device', ({ device: number }) => device(number).reset());
  handle('remove-device', ({ device: number }) => {
    devices.get(number)?.close();
    devices.delete(number);
    polled = [...devices.values()];
  });

  try {
    pollLoop(stop, new Idle(policy, stop), () => polled);
  } finally {
    for (const each of devices.values()) each.close();
  }
}

function pollLoop(stop: StopFlag, idle: Idle, devices: () => readonly GuestDevice[]): void {
  while (!stop.requested) {
    const polled = devices();
    let moved = 0;
    for (let index = 0; index < polled.length; index++) moved += polled[index]!.poll();
    idle.turn(moved);
  }
}
