/** Makes a guest a member of a learning layer-2 switch: devices of a thread that name the same switch are connected. */

import { Burst, MAX_BURST } from '../../memory/burst.js';
import { ALL_WORK } from '../../offload/work.js';
import { type PacketOnTheMove, packPackets, unpackPackets } from '../pair.js';
import type { PeekedPackets } from '../peeked-packets.js';
import type { SwitchFabric } from '../switch/fabric.js';
import type { LearningSwitch } from '../switch/learning-switch.js';
import type { MacTableOptions } from '../switch/mac-table.js';
import { releaseSwitch, switchNamed } from '../switch/registry.js';
import type { SwitchMember } from '../switch/switch-member.js';
import type { BackendPort, BackendPortContext } from './backend-port.js';
import { type CounterMemory, countersOf } from './port-counters.js';
import type { DirectReceiver, RoutingPort } from './routing-port.js';

export interface SwitchOptions {
  /** Which switch. Default `switch`. */
  readonly name?: string | undefined;
  /** Makes the guest a member of this VLAN alone, 1 to 4094, without seeing tags; all VLANs, tagged as they are, without it. */
  readonly vlan?: number | undefined;
  readonly counters?: CounterMemory | undefined;
  /** For the switch as a whole; those of its first member count. */
  readonly table?: MacTableOptions | undefined;
  /** Joins the parts of the switch on several threads; `createSwitchFabric` makes it. Without it each thread has its own. */
  readonly fabric?: SwitchFabric | undefined;
  /** Tells the guest from others on other threads: a number above 0 that no other guest has. */
  readonly identity?: number | undefined;
}

export const DEFAULT_SWITCH = 'switch';

export function createPort(context: BackendPortContext, options: SwitchOptions): BackendPort {
  return new SwitchPort(context, options);
}

class SwitchPort implements RoutingPort {
  /** What a receiver does not do, is done on the way to it. */
  readonly takesWork = ALL_WORK;
  readonly #context: BackendPortContext;
  readonly #name: string;
  readonly #switch: LearningSwitch;
  readonly #member: SwitchMember;

  constructor(context: BackendPortContext, options: SwitchOptions) {
    const { name = DEFAULT_SWITCH, vlan, counters, identity, table, fabric } = options;
    this.#context = context;
    this.#name = name;
    this.#switch = switchNamed(context.pool, name, { ...table, fabric });
    try {
      const queues = context.queuePairs;
      this.#member = this.#switch.join({ queues, vlan, identity, counters: countersOf(counters, 0) });
    } catch (error) {
      releaseSwitch(context.pool, name);
      throw error;
    }
  }

  /** All that comes: what another member does not take is that member's loss, and holds nobody up. */
  room(): number {
    return Number.MAX_SAFE_INTEGER;
  }

  fromGuest(burst: Burst): void {
    this.#switch.fromMember(burst, this.#member);
  }

  guestTakes(work: number): void {
    this.#switch.setWork(this.#member, work);
  }

  get peekBytes(): number {
    return this.#switch.peekBytes;
  }

  attach(guest: DirectReceiver): void {
    this.#member.attach(guest);
  }

  route(packets: PeekedPackets): void {
    this.#switch.route(packets, this.#member);
  }

  poll(): number {
    return this.#switch.turn();
  }

  toGuest(burst: Burst, pair: number): void {
    this.#switch.toMember(burst, this.#member, pair);
  }

  /** What waits goes along. */
  releasePair(pair: number): PacketOnTheMove[] {
    const burst = new Burst(this.#context.pool, MAX_BURST);
    const packets: PacketOnTheMove[] = [];
    do {
      burst.free();
      this.#switch.toMember(burst, this.#member, pair);
      packets.push(...packPackets(burst));
    } while (burst.count > 0);
    this.#member.forget(pair);
    return packets;
  }

  adoptPair(pair: number, state: unknown): void {
    const packets = (state ?? []) as readonly PacketOnTheMove[];
    const burst = new Burst(this.#context.pool, MAX_BURST);
    try {
      for (let from = 0; from < packets.length; from += MAX_BURST) {
        unpackPackets(packets.slice(from, from + MAX_BURST), burst);
        this.#member.adopt(burst, pair);
      }
    } catch (error) {
      // The pair stays where it was, with all that waits for it.
      this.#member.forget(pair);
      throw error;
    }
  }

  close(): void {
    this.#switch.leave(this.#member);
    releaseSwitch(this.#context.pool, this.#name);
  }
}
