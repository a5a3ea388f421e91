/** Writes what comes from the guest to a capture file, sends the packets of another to the guest; either or both. */

import { ErrorCode, VirtioError } from '../../errors.js';
import type { Burst } from '../../memory/burst.js';
import { PacketView } from '../../memory/packet-view.js';
import { PcapWriter } from '../../pcap/pcap-writer.js';
import type { BackendPort, BackendPortContext } from './backend-port.js';
import { CapturePackets } from './capture-packets.js';
import { pcapCounters } from './pcap-counters.js';
import { type CounterMemory, countersOf } from './port-counters.js';

export interface PcapOptions {
  /** Capture file to send from, on pair 0. Packets that no device may carry (under 14 bytes, over 65562) are skipped. */
  readonly input?: string | undefined;
  /** Begin again at the input's end, for ever. Default: send it once. */
  readonly loop?: boolean | undefined;
  /** Capture file to write what the guest sends; one that is there is emptied. Whole when the port is closed. */
  readonly output?: string | undefined;
  /** Where it counts; `pcapPort` gives it. */
  readonly counters?: CounterMemory | undefined;
}

/** Turns without a packet after which what is in memory goes to the file, for whoever reads along. */
const IDLE_TURNS = 4096;
const NS_PER_MS = 1_000_000n;

export function createPort(context: BackendPortContext, options: PcapOptions): BackendPort {
  return new PcapPort(context, options);
}

class PcapPort implements BackendPort {
  readonly #input: CapturePackets | undefined;
  readonly #view: PacketView;
  readonly #report: (reason: string) => void;
  readonly #counters: readonly Float64Array[];
  #writer: PcapWriter | undefined;
  /** Packets that the writer took. */
  #taken = 0;
  #idleTurns = 0;

  /** @throws VirtioError as of `PcapReader.open` and `PcapWriter.create`; UNSUPPORTED for a device on several threads */
  constructor(context: BackendPortContext, options: PcapOptions) {
    const { pool, queuePairs, pairs } = context;
    if (pairs !== undefined && pairs.length < queuePairs) {
      throw new VirtioError(ErrorCode.UNSUPPORTED, 'a pcap port has one file for all pairs of its device', {
        value: pairs,
        advice: 'have all pairs of the device on one thread',
      });
    }
    this.#view = new PacketView(pool);
    this.#report = context.report;
    this.#counters = Array.from({ length: queuePairs }, (_, pair) => countersOf(options.counters, pair));
    this.#input = options.input === undefined ? undefined : new CapturePackets(pool, options.input, options.loop);
    try {
      this.#writer = options.output === undefined ? undefined : PcapWriter.create(options.output);
    } catch (error) {
      this.#input?.close();
      throw error;
    }
  }

  room(): number {
    return Number.MAX_SAFE_INTEGER;
  }

  fromGuest(burst: Burst, pair: number): void {
    const counters = this.#counters[pair]!;
    counters[pcapCounters.received]! += burst.count;
    counters[pcapCounters.receivedBytes]! += burst.bytesTotal;
    if (this.#writer === undefined) counters[pcapCounters.notStored]! += burst.count;
    else this.#store(this.#writer, burst, counters);
    burst.free();
  }

  toGuest(burst: Burst, pair: number): void {
    if (pair !== 0) return;
    const input = this.#input;
    if (input === undefined || input.isOver) return;
    const counters = this.#counters[pair]!;
    const start = burst.count;
    try {
      input.addTo(burst);
    } catch (error) {
      this.#say(`sending ${input.path} has ended`, error);
    }
    counters[pcapCounters.skipped]! += input.takeSkipped();
    if (burst.count === start) return;
    counters[pcapCounters.sent]! += burst.count - start;
    counters[pcapCounters.sentBytes]! += input.takeBytes();
  }

  /** Once a turn: what was written a while ago is to be seen in the file. */
  poll(): number {
    if (this.#idleTurns >= IDLE_TURNS || ++this.#idleTurns < IDLE_TURNS || this.#writer === undefined) return 0;
    try {
      this.#writer.flush();
    } catch (error) {
      this.#giveUp(this.#writer, error, this.#counters[0]!);
    }
    return 0;
  }

  /** @throws VirtioError IO where what was left could not be written: the file is whole up to there all the same */
  close(): void {
    this.#input?.close();
    this.#writer?.close();
    this.#writer = undefined;
  }

  #store(writer: PcapWriter, burst: Burst, counters: Float64Array): void {
    this.#idleTurns = 0;
    const now = BigInt(Date.now()) * NS_PER_MS;
    for (let index = 0; index < burst.count; index++) {
      try {
        writer.write(this.#view.move(burst.handles[index]!).copyPacket(), now);
      } catch (error) {
        this.#taken += burst.count - index;
        this.#giveUp(writer, error, counters);
        return;
      }
      this.#taken++;
    }
  }

  /** The writer has failed and closed its file; the guest's packets go on being taken. */
  #giveUp(writer: PcapWriter, error: unknown, counters: Float64Array): void {
    this.#writer = undefined;
    counters[pcapCounters.notStored]! += this.#taken - writer.packets;
    this.#say('what the guest sends is no longer stored', error);
  }

  #say(what: string, error: unknown): void {
    const why = error instanceof VirtioError ? error.toLine() : String(error);
    this.#report(`${what}: ${why}`);
  }
}
