/**
 * Answers ARP requests, pings, and IPv6 neighbour solicitations, for any address, and drops everything else, counted:
 * testpmd's forward mode of this name, with IPv6.
 */

import type { Burst } from '../../memory/burst.js';
import type { BackendPort, BackendPortContext } from './backend-port.js';
import { PingResponder } from './ping-responder.js';
import { type CounterMemory, countersOf } from './port-counters.js';

export interface IcmpEchoOptions {
  /** MAC address that every IP address has; six bytes. Default 02:00:00:00:00:02. */
  readonly macAddress?: Uint8Array | undefined;
  /** Where it counts; `icmpEchoPort` gives it. */
  readonly counters?: CounterMemory | undefined;
}

const DEFAULT_MAC = Uint8Array.of(0x02, 0, 0, 0, 0, 0x02);

export function createPort(context: BackendPortContext, options: IcmpEchoOptions): BackendPort {
  return new IcmpEchoPort(context, options);
}

class IcmpEchoPort implements BackendPort {
  readonly #responder: PingResponder;
  readonly #counters: readonly Float64Array[];

  constructor(context: BackendPortContext, options: IcmpEchoOptions) {
    const { macAddress = DEFAULT_MAC, counters } = options;
    this.#responder = new PingResponder(context.pool, macAddress);
    this.#counters = Array.from({ length: context.queuePairs }, (_, pair) => countersOf(counters, pair));
  }

  bounce(burst: Burst, start: number, pair: number): void {
    this.#responder.answer(burst, start, this.#counters[pair]!);
  }

  room(): number {
    return 0;
  }
  fromGuest(): void {}
  toGuest(): void {}
  close(): void {}
}
