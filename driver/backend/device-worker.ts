/** The thread behind `DeviceThread`: polls the devices it was given, answers their control plane. */

import type { StopFlag } from '../lcore/command-word.js';
import type { LcoreContext } from '../lcore/context.js';
import { Idle, type IdlePolicy } from '../lcore/idle.js';
import { DmaMemory, type PageChoice } from '../memory/dma-memory.js';
import { DEFAULT_BUFFER_BYTES, PacketPool } from '../memory/packet-pool.js';
import { type DeviceRequests, GuestDevices } from './guest-devices.js';
import { SCRATCH_BYTES } from './guest-queues.js';
import { PortModules } from './port-modules.js';

/** What a poll thread of the back-end is started with. */
export interface DeviceThreadData {
  readonly poolSize: number;
  readonly bufferBytes: number | undefined;
  readonly pages: PageChoice | undefined;
  readonly idle: IdlePolicy;
  /** Modules of ports to load at the start. */
  readonly modules: readonly string[];
}

/** What is asked of a device thread beside its devices. */
export interface DeviceThreadRequests extends DeviceRequests {
  /** Loads a port's module; while that takes, nothing is polled. */
  'load-port': { module: string };
}

export async function lcoreMain({ stop, data, emit }: LcoreContext): Promise<void> {
  const { poolSize, bufferBytes = DEFAULT_BUFFER_BYTES, pages, idle: policy, modules } = data as DeviceThreadData;
  const ports = new PortModules();
  for (const module of modules) await ports.load(module);
  using memory = DmaMemory.allocate({ bytes: poolSize * bufferBytes + SCRATCH_BYTES, pages });
  const pool = PacketPool.create(memory, { size: poolSize, bufferBytes });
  const scratchAt = memory.take(SCRATCH_BYTES, 64);
  const scratch = { poolOffset: scratchAt, words: new Uint32Array(memory.buffer, scratchAt, SCRATCH_BYTES / 4) };
  const devices = new GuestDevices({
    resources: { pool, scratch },
    moduleOf: (module) => ports.of(module),
    emit,
  });
  devices.serve((type, handler) => stop.onRequest(type, handler));
  stop.onRequest('load-port', ({ module }: DeviceThreadRequests['load-port']) => ports.want(module));

  try {
    const idle = new Idle(policy, stop);
    do {
      await ports.loadWanted();
      pollLoop(stop, idle, ports, devices);
    } while (ports.areWanted);
  } finally {
    devices.close();
  }
}

/** Polls until the thread is to end, or a port's module is to be loaded. */
function pollLoop(stop: StopFlag, idle: Idle, ports: PortModules, devices: GuestDevices): void {
  while (!stop.requested && !ports.areWanted) {
    const polled = devices.all;
    let moved = 0;
    for (let index = 0; index < polled.length; index++) moved += polled[index]!.poll();
    idle.turn(moved);
  }
}
