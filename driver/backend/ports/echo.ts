/** Sends every packet back to the queue pair it came from, in order, and holds the guest back rather than lose one. */

import { ErrorCode, VirtioError } from '../../errors.js';
import type { Burst } from '../../memory/burst.js';
import { macForward, swapMacs } from '../../memory/ethernet.js';
import { PacketView } from '../../memory/packet-view.js';
import { ETHERNET_HEADER_BYTES } from '../../spec/ethernet.js';
import type { BackendPort, BackendPortContext } from './backend-port.js';

export interface EchoOptions {
  /** What is done to the Ethernet addresses on the way, as in testpmd. Default `io`: nothing. */
  readonly mode?: 'io' | 'mac' | 'macswap' | undefined;
  /** Packets of 64 bytes, or this many, that the port itself sends once at the start: testpmd's `start tx_first`. */
  readonly first?: { readonly packets: number; readonly bytes: number } | undefined;
}

const PEER = [0x02, 0, 0, 0, 0, 0x01];
const SELF = [0x02, 0, 0, 0, 0, 0x02];

export function createPort(context: BackendPortContext, options: EchoOptions): BackendPort {
  return new EchoPort(context, options);
}

class EchoPort implements BackendPort {
  readonly #mode: 'io' | 'mac' | 'macswap';
  readonly #view: PacketView;
  readonly #first: readonly { packets: number; bytes: number }[];

  constructor(context: BackendPortContext, options: EchoOptions) {
    const { mode = 'io', first = { packets: 0, bytes: 64 } } = options;
    const { dataBytes } = context.pool;
    if (!Number.isInteger(first.bytes) || first.bytes < ETHERNET_HEADER_BYTES || first.bytes > dataBytes) {
      throw new VirtioError(
        ErrorCode.INVALID_ARGUMENT,
        `a first packet has 14 to ${dataBytes} bytes, not ${first.bytes}`,
        {
          value: first.bytes,
        },
      );
    }
    this.#mode = mode;
    this.#view = new PacketView(context.pool);
    this.#first = Array.from({ length: context.queuePairs }, () => ({ ...first }));
  }

  bounce(burst: Burst, start: number): void {
    if (this.#mode === 'mac') macForward(burst, SELF, PEER, start);
    else if (this.#mode === 'macswap') swapMacs(burst, start);
  }

  room(): number {
    return 0;
  }
  fromGuest(): void {}

  /** Adds packets of the port's own, at the start. */
  toGuest(burst: Burst, pair: number): void {
    const first = this.#first[pair]!;
    if (first.packets === 0) return;
    const count = Math.min(first.packets, burst.capacity - burst.count);
    const start = burst.count;
    if (burst.allocate(count) === 0) return;
    for (let index = start; index < start + count; index++) {
      const view = this.#view.move(burst.handles[index]!);
      view.setLength(first.bytes);
      // Nothing of what the buffer held before gets out: that may be another guest's.
      view.clear();
      view.setU16(12, 0x0800);
    }
    macForward(burst, SELF, PEER, start);
    first.packets -= count;
  }

  releasePair(pair: number): number {
    return this.#first[pair]!.packets;
  }
  adoptPair(pair: number, state: unknown): void {
    this.#first[pair]!.packets = state as number;
  }

  close(): void {}
}
