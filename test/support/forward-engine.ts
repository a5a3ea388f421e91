/** A forward engine of testpmd between two queues of the test's own: bytes in, bytes out. */

import { createEngine } from '../../driver/cli/testpmd/lcore/engines/create-engine.js';
import type { ForwardSettings, PortForwardSettings } from '../../driver/cli/testpmd/lcore/forward-settings.js';
import { BurstCounter, type ForwardEngine } from '../../driver/cli/testpmd/lcore/stream.js';
import { Burst } from '../../driver/memory/burst.js';
import type { PacketPool } from '../../driver/memory/packet-pool.js';
import { PacketView } from '../../driver/memory/packet-view.js';
import { createPool } from '../../driver/net/create-pool.js';

export const RX_PORT = 0;
export const TX_PORT = 1;
export const TX_MAC = Uint8Array.of(0x52, 0x54, 0, 0, 0, 0x11);
export const PEER_MAC = Uint8Array.of(2, 0, 0, 0, 0, 1);

export const plainPort: PortForwardSettings = {
  macAddress: TX_MAC,
  peerAddress: PEER_MAC,
  rxOffloads: 0n,
  txOffloads: 0n,
  txVlan: 0,
  tsoSegmentBytes: 0,
  tunnelTsoSegmentBytes: 0,
  parsesTunnels: false,
  swapsMacs: true,
};

/** As testpmd has them when nothing is said. */
export const plainSettings: ForwardSettings = {
  mode: 'io',
  retries: false,
  retryDelayUs: 1,
  retryCount: 64,
  burst: 32,
  verbose: 0,
  recordsBursts: false,
  cyclesPerMs: 0,
  segmentBytes: [64],
  segmentSplit: 'off',
  txSourceIp: 0xc612_0001,
  txDestinationIp: 0xc612_0002,
  txSourcePort: 9,
  txDestinationPort: 9,
  txMultiFlow: false,
  flowgenFlows: 1024,
  flowgenClones: 0,
  noisy: { bufferPackets: 0, flushMs: 0, memoryMiB: 0, reads: 0, writes: 0, readWrites: 0 },
  ports: new Map([
    [RX_PORT, plainPort],
    [TX_PORT, plainPort],
  ]),
};

export class EngineBench {
  readonly pool: PacketPool;
  readonly engine: ForwardEngine;
  readonly counters = new Float64Array(BurstCounter.END);
  /** What it showed. */
  text = '';
  /** Packets that the transmit queue takes in each call. */
  room = Number.POSITIVE_INFINITY;
  /** `PacketFlag`s and tags of the packets that were sent last. */
  readonly sentFields: { flags: number; tag: number; segments: number; checksum: number }[] = [];
  readonly #waiting: Uint8Array[] = [];
  readonly #sent: Uint8Array[] = [];

  constructor(settings: Partial<ForwardSettings>, poolSize = 256) {
    this.pool = createPool({ size: poolSize, bufferBytes: 2176, pages: '4K' });
    const view = new PacketView(this.pool);
    const burst = new Burst(this.pool, settings.burst ?? plainSettings.burst);
    const receive = (into: Burst): number => {
      const start = into.count;
      while (this.#waiting.length > 0 && into.count < into.capacity && into.allocate(1) === 1) {
        view.move(into.handles[into.count - 1]!).fill(this.#waiting.shift()!);
      }
      return into.count - start;
    };
    const send = (from: Burst): number => {
      const count = Math.min(this.room, from.count);
      for (let index = 0; index < count; index++) {
        const handle = from.handles[index]!;
        const fields = this.pool.fields.subarray(handle * 8, handle * 8 + 8);
        this.sentFields.push({
          flags: fields[4]!,
          tag: fields[5]! & 0xffff,
          segments: this.pool.segments(handle),
          checksum: fields[7]!,
        });
        this.#sent.push(view.move(handle).copyPacket());
      }
      this.pool.free(from.handles, 0, count);
      from.removeFirst(count);
      return count;
    };
    const setup = { rxPort: RX_PORT, rxQueue: 0, txPort: TX_PORT, txQueue: 0, index: 0 };
    this.engine = createEngine(
      { setup, rx: { receive }, tx: { send }, burst, counters: this.counters },
      {
        pool: this.pool,
        settings: { ...plainSettings, ...settings },
        lcore: 1,
        print: (text) => {
          this.text += text;
        },
      },
    );
  }

  /** Gives the engine these packets, and turns; returns what it sent. */
  run(packets: readonly Uint8Array[], turns = 1): Uint8Array[] {
    this.#waiting.push(...packets);
    for (let turn = 0; turn < turns; turn++) this.engine.forward();
    return this.#sent.splice(0);
  }

  /** Buffers that are nowhere in the pool: what an engine has lost, or holds. */
  get missing(): number {
    return this.pool.size - this.pool.available;
  }

  close(): void {
    this.engine.close?.();
    this.pool.memory.close();
  }
}

/** Bytes of hexadecimal text; spaces count for nothing. */
export const fromHex = (text: string): Uint8Array => Uint8Array.from(Buffer.from(text.replaceAll(/\s/g, ''), 'hex'));
export const toHex = (bytes: Uint8Array): string => Buffer.from(bytes).toString('hex');
