/** Makes a tap interface of the host's kernel a member of a switch. Its device needs no front-end: it is polled by itself. */

import { Burst } from '../../memory/burst.js';
import { ALL_WORK } from '../../offload/work.js';
import { CompletedPackets } from '../completed-packets.js';
import { RingCounter } from '../counters.js';
import { poolReserve } from '../pool-reserve.js';
import type { LearningSwitch } from '../switch/learning-switch.js';
import { releaseSwitch, switchNamed } from '../switch/registry.js';
import { SwitchCounter } from '../switch/switch-counters.js';
import type { SwitchMember } from '../switch/switch-member.js';
import type { BackendPort, BackendPortContext } from './backend-port.js';
import { countersOf } from './port-counters.js';
import { DEFAULT_SWITCH, type SwitchOptions } from './switch.js';
import { TAP_BURST, TapDevice, type TapDeviceOptions } from './tap-device.js';

/** Turns between two looks at what the other members do, less one: a power of two. */
const LOOK_MASK = 0xff;

export interface SwitchUplinkOptions extends SwitchOptions {
  /** The interface. */
  readonly tap: TapDeviceOptions;
}

export function createPort(context: BackendPortContext, options: SwitchUplinkOptions): BackendPort {
  return new SwitchUplink(context, options);
}

class SwitchUplink implements BackendPort {
  readonly #context: BackendPortContext;
  readonly #name: string;
  readonly #switch: LearningSwitch;
  readonly #member: SwitchMember;
  readonly #tap: TapDevice;
  readonly #fromKernel: Burst;
  readonly #toKernel: Burst;
  /** What the kernel cannot complete. */
  readonly #completed: CompletedPackets;
  readonly #reserve: number;
  readonly #losses = new Float64Array(RingCounter.COUNT);
  /** What the kernel was told that others do. */
  #left = 0;
  #turns = 0;
  #isReported = false;

  constructor(context: BackendPortContext, options: SwitchUplinkOptions) {
    const { name = DEFAULT_SWITCH, vlan, counters, identity, table, fabric } = options;
    const { pool } = context;
    this.#context = context;
    this.#name = name;
    this.#fromKernel = new Burst(pool, TAP_BURST);
    this.#toKernel = new Burst(pool, TAP_BURST);
    this.#reserve = poolReserve(pool);
    this.#completed = new CompletedPackets(pool, TAP_BURST, this.#losses);
    this.#switch = switchNamed(pool, name, { ...table, fabric });
    let tap: TapDevice | undefined;
    try {
      tap = new TapDevice(pool, options.tap);
      this.#tap = tap;
      this.#member = this.#switch.join({ vlan, identity, counters: countersOf(counters, 0) });
    } catch (error) {
      tap?.close();
      releaseSwitch(pool, name);
      throw error;
    }
    this.#switch.setWork(this.#member, this.#tap.takesWork);
    // Others may send before the first turn.
    this.#switch.toMember(this.#toKernel, this.#member, 0);
  }

  poll(): number {
    if ((this.#turns++ & LOOK_MASK) === 0) this.#look();
    const moved = this.#switch.turn();
    const received = this.#tap.read(this.#fromKernel);
    if (received > 0) this.#switch.fromMember(this.#fromKernel, this.#member);
    this.#switch.toMember(this.#toKernel, this.#member, 0);
    const sent = this.#write();
    if (this.#completed.isWaiting && this.#context.pool.available < this.#reserve) this.#dropWaiting();
    this.#member.counters[SwitchCounter.DROP_REFUSED] = this.#tap.refused;
    if (this.#tap.isGone && !this.#isReported) {
      this.#isReported = true;
      this.#context.report(`the tap interface ${this.#tap.name} is gone`);
    }
    return moved + received + sent;
  }

  /** Writes what waits, and first what is to be completed: of all kernels since Linux 6.2 nothing is. */
  #write(): number {
    const refused = ALL_WORK & ~this.#tap.takesWork;
    if (refused === 0) return this.#tap.write(this.#toKernel);
    this.#completed.takeFrom(this.#toKernel, refused, TAP_BURST);
    const { DROP_OFFLOAD, DROP_NOT_TAKEN } = RingCounter;
    this.#member.counters[SwitchCounter.DROP_OFFLOAD] = this.#losses[DROP_OFFLOAD]! + this.#losses[DROP_NOT_TAKEN]!;
    return this.#tap.write(this.#completed.burst);
  }

  /** What the kernel does not take goes when the buffers of all members run low. */
  #dropWaiting(): void {
    this.#member.counters[SwitchCounter.DROP_NOT_TAKEN]! += this.#toKernel.count + this.#completed.free();
    this.#toKernel.free();
  }

  /** Has the kernel leave to others what they do. */
  #look(): void {
    const work = this.#switch.workFor(this.#member);
    if (work === this.#left) return;
    this.#left = work;
    this.#tap.leave(work);
  }

  room(): number {
    return Number.MAX_SAFE_INTEGER;
  }
  /** The device has no guest. */
  fromGuest(burst: Burst): void {
    burst.free();
  }
  toGuest(): void {}

  close(): void {
    this.#tap.close();
    this.#toKernel.free();
    this.#completed.free();
    this.#switch.leave(this.#member);
    releaseSwitch(this.#context.pool, this.#name);
  }
}
