/** A thread that polls queues of a driver's port and of a host's, which come and go: numbered packets, each way one flow. */

import { setImmediate as nextTurn } from 'node:timers/promises';
import { AttachedHostPort } from '../../driver/backend/host-thread.js';
import type { LcoreContext } from '../../driver/lcore/context.js';
import { Burst } from '../../driver/memory/burst.js';
import { DmaMemory, type DmaMemoryHandle } from '../../driver/memory/dma-memory.js';
import { PacketPool, type PacketPoolHandle } from '../../driver/memory/packet-pool.js';
import { PacketView } from '../../driver/memory/packet-view.js';
import type { AttachedPort, PortHandle } from '../../driver/net/attached-port.js';
import { attachToPort } from '../../driver/net/port-requests.js';

export interface PolledPortsData {
  readonly memory: DmaMemoryHandle;
  readonly pool: PacketPoolHandle;
  /** `FlowWord`s of both flows. */
  readonly flows: SharedArrayBuffer;
}

/** Words of a flow: packets sent, packets that came, packets that were not the next one. */
export const FlowWord = { SENT: 0, RECEIVED: 1, WRONG: 2, COUNT: 3 } as const;

/** Ends of the flows: 0 goes from the driver to the host, 1 back. */
export type Role = 'driver-tx' | 'host-rx' | 'host-tx' | 'driver-rx';

const BYTES = 64;
const NUMBER_AT = 20;

/** Sends packets with the next numbers. */
class Generator {
  readonly #burst: Burst;
  readonly #view: PacketView;
  readonly #words: Int32Array;
  readonly #send: (burst: Burst) => number;

  constructor(pool: PacketPool, words: Int32Array, send: (burst: Burst) => number) {
    this.#burst = new Burst(pool, 16);
    this.#view = new PacketView(pool);
    this.#words = words;
    this.#send = send;
  }

  turn(): void {
    const burst = this.#burst;
    if (burst.count === 0) {
      const count = burst.allocate(16);
      for (let index = 0; index < count; index++) {
        this.#view.move(burst.handles[index]!).setLength(BYTES);
        this.#view.setU16(12, 0x88b5);
        this.#view.setU32(NUMBER_AT, this.#words[FlowWord.SENT]! + index);
      }
    }
    const before = burst.count;
    this.#send(burst);
    this.#words[FlowWord.SENT]! += before - burst.count;
  }

  close(): void {
    this.#burst.free();
  }
}

/** Looks at what comes. */
class Checker {
  readonly #burst: Burst;
  readonly #view: PacketView;
  readonly #words: Int32Array;
  readonly #receive: (burst: Burst) => number;

  constructor(pool: PacketPool, words: Int32Array, receive: (burst: Burst) => number) {
    this.#burst = new Burst(pool, 32);
    this.#view = new PacketView(pool);
    this.#words = words;
    this.#receive = receive;
  }

  turn(): void {
    const burst = this.#burst;
    this.#receive(burst);
    for (let index = 0; index < burst.count; index++) {
      const number = this.#view.move(burst.handles[index]!).u32(NUMBER_AT);
      if (number !== this.#words[FlowWord.RECEIVED]!++) this.#words[FlowWord.WRONG]!++;
    }
    burst.free();
  }

  close(): void {
    this.#burst.free();
  }
}

export async function lcoreMain({ stop, data, emit }: LcoreContext): Promise<void> {
  const { memory: memoryHandle, pool: poolHandle, flows } = data as PolledPortsData;
  using memory = DmaMemory.attach(memoryHandle);
  const pool = PacketPool.attach(memory, poolHandle);
  const words = [0, 1].map((flow) => new Int32Array(flows, flow * FlowWord.COUNT * 4, FlowWord.COUNT));
  const roles = new Map<Role, Generator | Checker>();
  const onRequest = (type: string, handler: (payload: never) => unknown): void => stop.onRequest(type, handler);
  const host = new AttachedHostPort({ pool, onRequest, emit });
  let driver: AttachedPort | undefined;
  onRequest('driver', async (handle: PortHandle) => {
    driver = await attachToPort(handle, pool, onRequest);
  });
  onRequest('begin', (role: Role) => {
    const made = {
      'driver-tx': () => new Generator(pool, words[0]!, (burst) => driver!.txQueue(0).send(burst)),
      'host-rx': () => new Checker(pool, words[0]!, (burst) => host.receive(0, burst)),
      'host-tx': () => new Generator(pool, words[1]!, (burst) => host.send(0, burst)),
      'driver-rx': () => new Checker(pool, words[1]!, (burst) => driver!.rxQueue(0).receive(burst)),
    };
    roles.set(role, made[role]());
  });
  onRequest('end', (role: Role) => {
    roles.get(role)?.close();
    roles.delete(role);
  });
  while (!stop.requested) {
    for (let turn = 0; turn < 16; turn++) {
      for (const role of roles.values()) role.turn();
      host.tend();
    }
    await nextTurn();
  }
  for (const role of roles.values()) role.close();
  driver?.close();
  host.close();
  pool.flush();
}
