/** Mode txonly: UDP packets of the lengths of `set txpkts`, to port 9 ("discard", RFC 863) of a test network (RFC 2544). */

import { PacketBytes, PacketField, PacketFlag } from '../../../../thread.js';
import { portSettings, TxOffload } from '../forward-settings.js';
import { StreamCounter } from '../stream.js';
import type { EngineContext, EngineMaker } from './engine-maker.js';
import { UDP_HEADERS_BYTES, UdpHeaders } from './udp-headers.js';

const { DATA_OFFSET, SEGMENT_LENGTH, NEXT, PACKET_LENGTH, FLAGS, VLAN_AND_PORT, WORDS_SHIFT } = PacketField;
const FLOW_MASK = 0xff;

/** The next flow of `--txonly-multi-flow`: the streams of a thread take turns. */
let nextFlow = 0;

export const txOnlyEngine: EngineMaker = ({ burst, setup, counters }, traffic, context) => {
  const { txPort, txQueue } = setup;
  const packets = new TxOnlyPackets(context, txPort);
  const tellsDrops = context.settings.verbose > 0;
  return {
    forward() {
      while (burst.count < burst.capacity && packets.make(burst.handles, burst.count)) burst.count++;
      const made = burst.count;
      if (made === 0) return 0;
      const isFirstDrop = counters[StreamCounter.FWD_DROPPED] === 0;
      const sent = traffic.send();
      nextFlow = (nextFlow - (made - sent)) & FLOW_MASK;
      if (tellsDrops && isFirstDrop && sent < made) {
        const drops = `(nb_pkt:${made} - nb_tx:${sent})=${made - sent} packets`;
        context.print(`port ${txPort} tx_queue ${txQueue} - drop ${drops}\n`);
      }
      return sent;
    },
  };
};

class TxOnlyPackets {
  readonly #pool: EngineContext['pool'];
  readonly #segmentBytes: readonly number[];
  readonly #isRandom: boolean;
  /** With several flows the source addresses: what all of them have in common; else -1. */
  readonly #flowAddress: number;
  readonly #lcore: number;
  readonly #flags: number;
  readonly #tag: number;
  readonly #headers: UdpHeaders;
  readonly #segments: Uint32Array;
  readonly #packet: PacketBytes;

  constructor({ pool, settings, lcore }: EngineContext, port: number) {
    const { segmentBytes, segmentSplit, txMultiFlow, txDestinationIp } = settings;
    const { macAddress, peerAddress, txOffloads, txVlan } = portSettings(settings, port);
    this.#pool = pool;
    this.#segmentBytes = segmentBytes;
    this.#isRandom = segmentSplit === 'rand';
    this.#flowAddress = txMultiFlow ? txDestinationIp : -1;
    this.#lcore = lcore;
    this.#flags = (txOffloads & TxOffload.VLAN_INSERT) === 0n ? 0 : PacketFlag.VLAN;
    this.#tag = txVlan;
    const flow = {
      destination: peerAddress,
      source: macAddress,
      sourceAddress: settings.txSourceIp,
      destinationAddress: txDestinationIp,
      sourcePort: settings.txSourcePort,
      destinationPort: settings.txDestinationPort,
    };
    const bytes = segmentBytes.reduce((sum, length) => sum + length, 0);
    this.#headers = new UdpHeaders(flow, bytes);
    this.#segments = new Uint32Array(segmentBytes.length);
    this.#packet = new PacketBytes(pool);
  }

  /** Makes a packet, into place `index` of `out`; false where there are no buffers. */
  make(out: Uint32Array, index: number): boolean {
    const pool = this.#pool;
    const lengths = this.#segmentBytes;
    const segments = this.#segments;
    const count = this.#isRandom ? 1 + Math.floor(Math.random() * lengths.length) : lengths.length;
    if (!pool.take(segments, 0, count)) return false;
    const first = segments[0]!;
    const field = first << WORDS_SHIFT;
    pool.fields[field + PACKET_LENGTH] = this.#chain(count);
    if (this.#flags !== 0) {
      pool.fields[field + FLAGS] = this.#flags;
      pool.fields[field + VLAN_AND_PORT] = this.#tag;
    }
    if (this.#isRandom) this.#headers.setLength(pool.fields[field + PACKET_LENGTH]!);
    if (this.#flowAddress !== -1) {
      this.#headers.setSourceAddress((this.#flowAddress | (nextFlow << 8)) + this.#lcore);
      nextFlow = (nextFlow + 1) & FLOW_MASK;
    }
    const start = pool.offset + Math.imul(first, pool.bufferBytes) + pool.headroom;
    if (lengths[0]! >= UDP_HEADERS_BYTES) this.#headers.writeTo(pool, start);
    else this.#headers.writeInto(this.#packet.move(first));
    out[index] = first;
    return true;
  }

  /** Joins the segments; returns the bytes of the whole. */
  #chain(count: number): number {
    const { fields, headroom } = this.#pool;
    let bytes = 0;
    for (let number = 0; number < count; number++) {
      const field = this.#segments[number]! << WORDS_SHIFT;
      const length = this.#segmentBytes[number]!;
      fields[field + DATA_OFFSET] = headroom;
      fields[field + SEGMENT_LENGTH] = length;
      fields[field + NEXT] = number + 1 < count ? this.#segments[number + 1]! + 1 : 0;
      bytes += length;
    }
    return bytes;
  }
}
