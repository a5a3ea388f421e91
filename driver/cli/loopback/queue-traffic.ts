/** Sends the packets of one queue pair, takes them back and verifies them; on the poll thread. */

import { PacketField } from '../../memory/packet-fields.js';
import { PacketView } from '../../memory/packet-view.js';
import type { AttachedPort, Burst, PacketPool, PcapWriter } from '../../thread.js';
import type { PacketContent } from './content.js';
import { TrafficCounter } from './counters.js';

/** What was wrong first, in a form that can be posted. */
export interface Difference {
  readonly kind: 'corrupt' | 'length' | 'reordered' | 'lost';
  readonly queue: number;
  /** Number of the packet in its queue, from 0 on. */
  readonly sequence: number;
  /** `corrupt`: position of the byte. */
  readonly position: number;
  /** `corrupt`: the byte; `length`: of the packet; `reordered`: the sequence number. What should be, and what is. */
  readonly expected: number;
  readonly got: number;
}

export interface QueueTrafficOptions {
  readonly content: PacketContent;
  /** Packets to send; Infinity when only time ends it. */
  readonly packets: number;
  readonly largest: number;
  readonly burst: number;
  readonly ringSize: number;
  readonly verify: boolean;
  readonly counters: Float64Array;
  /** Where what comes back is stored, and with which time. */
  readonly store: { readonly writer: PcapWriter; timestampNs(sequence: number): bigint } | undefined;
}

/** A receive queue refills its ring when this many buffers are missing, or a quarter of the ring. */
const REFILL_STEP = 64;
/** Received at a time at most: what a receive queue refills at once, with some to spare. */
const RECEIVE_MOST = 192;
/** How far back a packet may be late and still be recognised. */
const LATE_MOST = 4096;

export class QueueTraffic {
  readonly #options: QueueTrafficOptions;
  readonly #queue: number;
  readonly #content: PacketContent;
  readonly #counters: Float64Array;
  readonly #pool: PacketPool;
  readonly #rx: ReturnType<AttachedPort['rxQueue']>;
  readonly #tx: ReturnType<AttachedPort['txQueue']>;
  readonly #in: Burst;
  readonly #out: Burst;
  readonly #view: PacketView;
  /** Buffers behind the first of a long packet. */
  readonly #segments = new Uint32Array(64);
  readonly #packets: number;
  readonly #verify: boolean;
  /** The connection to the device that the packets under way belong to. */
  #session: unknown;
  /** Most packets under way. */
  #window = 0;
  /** Numbers of the next packet to make, to be taken by the ring, and to come back. */
  #made = 0;
  #sent = 0;
  #expected = 0;
  /** Packets before this one were lost with a back-end, and break no order when they come back after all. */
  #excused = 0;
  #difference: Difference | undefined;

  constructor(port: AttachedPort, queue: number, options: QueueTrafficOptions) {
    this.#options = options;
    this.#queue = queue;
    this.#content = options.content;
    this.#counters = options.counters;
    this.#packets = options.packets;
    this.#verify = options.verify;
    this.#pool = port.pool;
    this.#rx = port.rxQueue(queue);
    this.#tx = port.txQueue(queue);
    this.#in = port.burst(Math.min(options.burst, RECEIVE_MOST));
    this.#out = port.burst(options.burst);
    this.#view = new PacketView(port.pool);
  }

  /** One turn: takes back what has come, sends what may be sent. Returns how many packets moved. */
  turn(isSending: boolean): number {
    const session = this.#rx.current;
    if (session !== this.#session) this.#renew(session);
    if (session === undefined) return 0;
    const received = this.#receive();
    const waiting = this.#made - this.#expected;
    if (isSending && waiting < this.#window && this.#made < this.#packets) this.#make(waiting);
    const moved = this.#out.count === 0 ? received : received + this.#post();
    if (moved > 0) this.#counters[TrafficCounter.UNDER_WAY] = this.#sent - this.#expected;
    return moved;
  }

  /** Whether all packets are back, or will never be. */
  isDone(isSending: boolean): boolean {
    return this.#expected === this.#made && (!isSending || this.#made >= this.#packets);
  }

  /** Whether anything came back yet. */
  get hasReceived(): boolean {
    return this.#counters[TrafficCounter.RECEIVED]! > 0;
  }

  /** What was wrong first, or undefined. */
  get difference(): Difference | undefined {
    return this.#difference;
  }

  /** Why a ring stands still, or undefined. */
  get broken(): string | undefined {
    return this.#rx.broken ?? this.#tx.broken;
  }

  /** Gives packets that were never sent back. */
  close(): void {
    this.#out.free();
  }

  /** A new connection to the device, or none: what was under way is gone. */
  #renew(session: unknown): void {
    this.#session = session;
    const gone = this.#sent - this.#expected;
    if (gone > 0) {
      this.#counters[TrafficCounter.LOST]! += gone;
      this.#counters[TrafficCounter.LOST_WITH_BACKEND]! += gone;
      this.#counters[TrafficCounter.UNDER_WAY] = 0;
      this.#expected = this.#sent;
      this.#excused = this.#sent;
    }
    if (session === undefined) return;
    const { ringSize, largest } = this.#options;
    // A fresh ring is all room; the device may have made it smaller.
    const size = Math.min(ringSize, this.#tx.room);
    const posted = size - Math.min(REFILL_STEP, size >>> 2);
    this.#window = Math.max(1, Math.floor(posted / Math.ceil(largest / this.#pool.dataBytes)));
  }

  #receive(): number {
    const burst = this.#in;
    const received = this.#rx.receive(burst);
    if (received === 0) return 0;
    const { fields } = this.#pool;
    const { handles } = burst;
    let bytes = 0;
    for (let index = 0; index < received; index++) {
      const handle = handles[index]!;
      bytes += fields[handle * PacketField.WORDS + PacketField.PACKET_LENGTH]!;
      if (this.#options.store !== undefined) this.#keep(handle);
      if (this.#verify) this.#check(handle);
      // More may come than were sent: twice, or another queue's.
      else if (this.#expected < this.#sent) this.#expected++;
    }
    this.#counters[TrafficCounter.RECEIVED]! += received;
    this.#counters[TrafficCounter.RECEIVED_BYTES]! += bytes;
    burst.count = 0;
    this.#pool.free(handles, 0, received);
    return received;
  }

  /** Makes as many packets as may be under way, at most a burst. */
  #make(waiting: number): void {
    const burst = this.#out;
    const start = burst.count;
    const count = Math.min(burst.capacity - start, this.#window - waiting, this.#packets - this.#made);
    if (count <= 0 || burst.allocate(count) === 0) return;
    const pool = this.#pool;
    const { fields, offset, bufferBytes, headroom, dataBytes } = pool;
    const { handles } = burst;
    for (let index = start; index < start + count; index++) {
      const sequence = this.#made;
      const handle = handles[index]!;
      const length = this.#content.bytesOf(sequence);
      const field = handle * PacketField.WORDS;
      const here = length < dataBytes ? length : dataBytes;
      fields[field + PacketField.PACKET_LENGTH] = length;
      fields[field + PacketField.SEGMENT_LENGTH] = here;
      this.#content.write(sequence, 0, here, offset + handle * bufferBytes + headroom);
      if (here < length && !this.#addSegments(handle, sequence, here, length)) {
        // Without buffers for the whole of it: this one and the rest are made another time.
        pool.freeBuffers(handles, index, start + count - index);
        burst.count = index;
        return;
      }
      this.#made = sequence + 1;
    }
  }

  /** Chains buffers behind `first` for bytes `from` to `length - 1`; false when the pool has too few. */
  #addSegments(first: number, sequence: number, from: number, length: number): boolean {
    const pool = this.#pool;
    const { fields, offset, bufferBytes, headroom, dataBytes } = pool;
    const segments = this.#segments;
    const count = Math.ceil((length - from) / dataBytes);
    if (!pool.allocate(segments, 0, count)) return false;
    let previous = first;
    let position = from;
    for (let index = 0; index < count; index++) {
      const handle = segments[index]!;
      const here = Math.min(dataBytes, length - position);
      fields[handle * PacketField.WORDS + PacketField.SEGMENT_LENGTH] = here;
      fields[previous * PacketField.WORDS + PacketField.NEXT] = handle + 1;
      this.#content.write(sequence, position, here, offset + handle * bufferBytes + headroom);
      previous = handle;
      position += here;
    }
    return true;
  }

  #post(): number {
    const burst = this.#out;
    const { fields } = this.#pool;
    const { handles } = burst;
    const offered = burst.count;
    let bytes = 0;
    for (let index = 0; index < offered; index++)
      bytes += fields[handles[index]! * PacketField.WORDS + PacketField.PACKET_LENGTH]!;
    const taken = this.#tx.send(burst);
    // What stayed is counted when it goes.
    for (let index = 0; index < burst.count; index++)
      bytes -= fields[handles[index]! * PacketField.WORDS + PacketField.PACKET_LENGTH]!;
    this.#sent += taken;
    this.#counters[TrafficCounter.SENT]! += taken;
    this.#counters[TrafficCounter.SENT_BYTES]! += bytes;
    return taken;
  }

  /** Verifies a packet that came back: usually it is the one that is due. */
  #check(handle: number): void {
    const sequence = this.#expected;
    if (sequence < this.#sent && this.#differenceAt(handle, sequence) < 0) {
      this.#expected = sequence + 1;
      this.#counters[TrafficCounter.VERIFIED]! += 1;
      return;
    }
    this.#checkUnexpected(handle, sequence);
  }

  /** A packet that is not the one that is due: another one that was sent, or none. */
  #checkUnexpected(handle: number, due: number): void {
    const counters = this.#counters;
    const pool = this.#pool;
    const field = handle * PacketField.WORDS;
    const at = pool.offset + handle * pool.bufferBytes + pool.fields[field + PacketField.DATA_OFFSET]!;
    const length = pool.fields[field + PacketField.SEGMENT_LENGTH]!;
    const oldest = Math.max(0, due - LATE_MOST);
    const found = this.#content.guess(due, oldest, this.#sent - 1, at, length);
    if (found < 0 || this.#differenceAt(handle, found) >= 0) {
      this.#noteCorrupt(handle, due);
      counters[TrafficCounter.CORRUPT]! += 1;
      if (due < this.#sent) this.#expected = due + 1;
      return;
    }
    counters[TrafficCounter.VERIFIED]! += 1;
    if (found > due) {
      this.#note('lost', due, 0, 0, 0);
      counters[TrafficCounter.LOST]! += found - due;
      this.#expected = found + 1;
      return;
    }
    // It was given up before: it is late, or a second one of its kind.
    if (counters[TrafficCounter.LOST]! > 0) counters[TrafficCounter.LOST]! -= 1;
    if (found < this.#excused) {
      if (counters[TrafficCounter.LOST_WITH_BACKEND]! > 0) counters[TrafficCounter.LOST_WITH_BACKEND]! -= 1;
      return;
    }
    counters[TrafficCounter.REORDERED]! += 1;
    this.#note('reordered', found, 0, due, found);
  }

  /** Where a packet, over all its segments, is not packet `sequence`; -1 nowhere. */
  #differenceAt(handle: number, sequence: number): number {
    const content = this.#content;
    const pool = this.#pool;
    const { fields, offset, bufferBytes } = pool;
    const length = content.bytesOf(sequence);
    let position = 0;
    for (let next = handle + 1; next !== 0 && position < length; ) {
      const segment = next - 1;
      const field = segment * PacketField.WORDS;
      const here = Math.min(fields[field + PacketField.SEGMENT_LENGTH]!, length - position);
      const at = offset + segment * bufferBytes + fields[field + PacketField.DATA_OFFSET]!;
      const found = content.difference(sequence, position, here, at);
      if (found >= 0) return found;
      position += here;
      next = fields[field + PacketField.NEXT]!;
    }
    // All that both have is alike: they differ where the shorter one ends.
    return fields[handle * PacketField.WORDS + PacketField.PACKET_LENGTH] === length ? -1 : position;
  }

  #noteCorrupt(handle: number, due: number): void {
    if (this.#difference !== undefined) return;
    const length = this.#pool.fields[handle * PacketField.WORDS + PacketField.PACKET_LENGTH]!;
    const position = this.#differenceAt(handle, due);
    const expected = this.#content.bytesOf(due);
    if (position >= Math.min(length, expected)) this.#note('length', due, position, expected, length);
    // Compared as a copy: this happens once.
    else
      this.#note(
        'corrupt',
        due,
        position,
        this.#content.byteAt(due, position),
        this.#view.move(handle).copyPacket()[position]!,
      );
  }

  #note(kind: Difference['kind'], sequence: number, position: number, expected: number, got: number): void {
    this.#difference ??= { kind, queue: this.#queue, sequence, position, expected, got };
  }

  /** Stores a packet. The file wants objects: they are made only where one is written. */
  #keep(handle: number): void {
    const { store } = this.#options;
    const packet = this.#view.move(handle).copyPacket();
    store?.writer.write(packet, store.timestampNs(this.#expected));
  }
}
