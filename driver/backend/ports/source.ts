/** Sends numbered packets to the guest, at a rate or as fast as it takes them; counts what comes back. */

import { ErrorCode, VirtioError } from '../../errors.js';
import type { Burst } from '../../memory/burst.js';
import type { PacketPool } from '../../memory/packet-pool.js';
import { PacketView } from '../../memory/packet-view.js';
import { EthernetHeader } from '../../spec/internet.js';
import { MAC_BYTES } from '../../spec/net-config.js';
import type { BackendPort, BackendPortContext } from './backend-port.js';
import { Pacer } from './pacer.js';
import { type CounterMemory, countersOf } from './port-counters.js';
import { StreamCheck } from './stream-check.js';
import { streamCounters } from './stream-counters.js';
import { FLOWS, STREAMS, TEST_PACKET_BYTES, TestPacketWriter, type TestProtocol } from './test-packet.js';

export interface SourceOptions {
  /**
   * Bytes of each packet, Ethernet header included: 14 to what one buffer takes, or `imix` (64, 594 and 1518 bytes as
   * 7:4:1). Default 64. From 28 bytes on, with UDP 56, a receiver can verify them.
   */
  readonly bytes?: number | 'imix' | undefined;
  /** Packets to send on each pair; without end when not given. */
  readonly packets?: number | undefined;
  /** Packets a second on each pair; as fast as the guest takes them when neither rate is given. */
  readonly rate?: number | undefined;
  /** Instead of `rate`: bits a second on each pair, of frames without preamble and frame check sequence. */
  readonly bitRate?: number | undefined;
  /** Source addresses that take turns, each one more than the one before. Default 1, at most 65534. */
  readonly flows?: number | undefined;
  /** What packets are: frames of the EtherType for local experiments (the default), or UDP over IPv4. */
  readonly protocol?: TestProtocol | undefined;
  /** MAC address that packets are to. Default 02:00:00:00:00:01. */
  readonly destination?: Uint8Array | undefined;
  /** MAC address that packets are from; bytes 4 and 5 count flows. Default 02:00:00:00:00:02. */
  readonly source?: Uint8Array | undefined;
  /** Number of the stream that pair 0 sends; each pair has its own. Default 0: give each source of a network another. */
  readonly stream?: number | undefined;
  /** Verify what comes back of them: order and every byte. */
  readonly verify?: boolean | undefined;
  /** Where it counts; `sourcePort` gives it. */
  readonly counters?: CounterMemory | undefined;
}

/** The "simple IMIX". */
const IMIX = [64, 594, 64, 64, 594, 64, 1518, 64, 594, 64, 64, 594] as const;
const DESTINATION = Uint8Array.of(0x02, 0, 0, 0, 0, 0x01);
const SOURCE = Uint8Array.of(0x02, 0, 0, 0, 0, 0x02);

export function createPort(context: BackendPortContext, options: SourceOptions): BackendPort {
  return new SourcePort(context, options);
}

/** What a pair takes along to another thread. */
interface PairState {
  readonly sent: number;
  readonly run: number;
}

class SourcePort implements BackendPort {
  readonly #lengths: Uint32Array;
  readonly #packets: number;
  readonly #flows: number;
  readonly #stream: number;
  readonly #pacer: Pacer | undefined;
  readonly #countsBits: boolean;
  readonly #sent: Float64Array;
  /** A number that another start of the source has not, by pair: it goes with the pair to other threads. */
  readonly #runs: Uint16Array;
  readonly #view: PacketView;
  readonly #writer: TestPacketWriter;
  readonly #check: StreamCheck | undefined;
  readonly #counters: readonly Float64Array[];

  constructor(context: BackendPortContext, options: SourceOptions) {
    const { pool, queuePairs } = context;
    const { packets = Number.POSITIVE_INFINITY, flows = 1, stream = 0, protocol = 'ethernet' } = options;
    const { destination = DESTINATION, source = SOURCE } = options;
    this.#lengths = lengthsOf(options, protocol, pool);
    checkOptions(options, queuePairs);
    this.#packets = packets;
    this.#flows = flows;
    this.#stream = stream;
    this.#countsBits = options.bitRate !== undefined;
    const rate = options.rate ?? options.bitRate;
    const largest = this.#countsBits ? Math.max(...this.#lengths) * 8 : 1;
    this.#pacer = rate === undefined ? undefined : new Pacer(rate, largest, queuePairs);
    this.#sent = new Float64Array(queuePairs);
    this.#runs = new Uint16Array(queuePairs).fill(Math.floor(Math.random() * 0x1_0000));
    this.#view = new PacketView(pool);
    this.#writer = new TestPacketWriter(pool, protocol, destination, source);
    this.#check = options.verify === true ? new StreamCheck(pool) : undefined;
    this.#counters = Array.from({ length: queuePairs }, (_, pair) => countersOf(options.counters, pair));
  }

  room(): number {
    return Number.MAX_SAFE_INTEGER;
  }

  fromGuest(burst: Burst, pair: number): void {
    const counters = this.#counters[pair]!;
    counters[streamCounters.received]! += burst.count;
    counters[streamCounters.receivedBytes]! += burst.bytesTotal;
    this.#check?.look(burst, counters);
    burst.free();
  }

  toGuest(burst: Burst, pair: number): void {
    const first = this.#sent[pair]!;
    const start = burst.count;
    const most = Math.min(burst.capacity - start, this.#packets - first);
    if (most <= 0) return;
    const count = this.#pacer === undefined ? most : this.#due(this.#pacer, pair, first, most);
    if (count === 0 || burst.allocate(count) === 0) return;
    let bytes = 0;
    const writer = this.#writer;
    writer.begin(this.#stream + pair, this.#runs[pair]!);
    for (let index = 0; index < count; index++) {
      const number = first + index;
      const length = this.#lengths[number % this.#lengths.length]!;
      const view = this.#view.move(burst.handles[start + index]!);
      view.setLength(length);
      writer.write(view.start, length, number >>> 0, number % this.#flows);
      bytes += length;
    }
    this.#pacer?.spend(pair, this.#countsBits ? bytes * 8 : count);
    this.#sent[pair] = first + count;
    const counters = this.#counters[pair]!;
    counters[streamCounters.sent]! += count;
    counters[streamCounters.sentBytes]! += bytes;
  }

  releasePair(pair: number): PairState {
    return { sent: this.#sent[pair]!, run: this.#runs[pair]! };
  }
  adoptPair(pair: number, state: unknown): void {
    const { sent, run } = state as PairState;
    this.#sent[pair] = sent;
    this.#runs[pair] = run;
  }

  close(): void {}

  /** How many of the next `most` packets the rate has room for. */
  #due(pacer: Pacer, pair: number, first: number, most: number): number {
    let due = pacer.due(pair, performance.now());
    if (!this.#countsBits) return Math.min(Math.floor(due), most);
    for (let count = 0; count < most; count++) {
      due -= this.#lengths[(first + count) % this.#lengths.length]! * 8;
      if (due < 0) return count;
    }
    return most;
  }
}

function lengthsOf({ bytes = 64 }: SourceOptions, protocol: TestProtocol, pool: PacketPool): Uint32Array {
  const lengths = Uint32Array.from(bytes === 'imix' ? IMIX : [bytes]);
  const least = protocol === 'udp' ? TEST_PACKET_BYTES.udp : EthernetHeader.BYTES;
  const isWhole = bytes === 'imix' || Number.isInteger(bytes);
  if (isWhole && lengths.every((length) => length >= least && length <= pool.dataBytes)) return lengths;
  throw refused(`a source sends packets of ${least} to ${pool.dataBytes} bytes, not ${bytes}`, bytes);
}

/** @throws VirtioError INVALID_ARGUMENT */
function checkOptions(options: SourceOptions, queuePairs: number): void {
  const { packets = 0, flows = 1, stream = 0, rate, bitRate } = options;
  if (!(packets >= 0)) throw refused(`a source cannot send ${packets} packets`, packets);
  if (!Number.isInteger(flows) || flows < 1 || flows > FLOWS) {
    throw refused(`a source has 1 to ${FLOWS} flows, not ${flows}`, flows);
  }
  if (!Number.isInteger(stream) || stream < 0 || stream + queuePairs > STREAMS) {
    throw refused(`the streams of a source are numbered 0 to ${STREAMS - 1}, not ${stream} on`, stream);
  }
  if (rate !== undefined && bitRate !== undefined) throw refused('a source has a packet rate or a bit rate', bitRate);
  for (const value of [rate, bitRate]) {
    if (value !== undefined && !(value > 0 && value < Number.POSITIVE_INFINITY)) {
      throw refused(`a rate is above 0, not ${value}`, value);
    }
  }
  for (const address of [options.destination, options.source]) {
    if (address !== undefined && address.length !== MAC_BYTES) throw refused('a MAC address is six bytes', address);
  }
}

const refused = (message: string, value: unknown): VirtioError =>
  new VirtioError(ErrorCode.INVALID_ARGUMENT, message, { value });
