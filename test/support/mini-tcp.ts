/** Just enough TCP to talk to a kernel over the driver: one connection, long packets, sent again from what is not acknowledged. */

import { createHash } from 'node:crypto';
import { setImmediate as turn } from 'node:timers/promises';
import { type Burst, OffloadRequests, PacketField, PacketFlag, PacketView, type Port } from '../../driver/index.js';
import { checksum, type PacketShape, packetOf, place, placesOf, transportChecksum } from './offload-packets.js';

const { FLAGS, WORDS } = PacketField;
const [SYN, FIN, PSH, ACK] = [0x02, 0x01, 0x08, 0x10];
/** Scale of our window, and the biggest packet that is sent. */
const WINDOW_SHIFT = 7;
const PACKET_BYTES = 60_000;
/** Without an acknowledgement for so long, everything is sent again. */
const AGAIN_MS = 1000;
const DATA_BATCH = 8;

export interface MiniTcpOptions {
  readonly version: 4 | 6;
  readonly segmentBytes: number;
}

/** What came in, by kind. */
export interface Arrivals {
  packets: number;
  longest: number;
  /** With a SEGMENT flag. */
  long: number;
  /** With COALESCED. */
  joined: number;
  /** With CHECKSUM_VALID or NEEDS_CHECKSUM. */
  checked: number;
  /** Whole checksums that a slow judge found wrong. */
  wrong: number;
}

/** The byte of the stream at a place. */
const patternAt = (at: number): number => (at * 31 + (at >>> 8)) & 0xff;

/** The end of a connection from 10.1.2.3 (2001:db8::1) port 4000 to 10.4.5.6 (2001:db8::2) port 5000, MAC …:02 to …:01. */
export class MiniTcp {
  readonly arrivals: Arrivals = { packets: 0, longest: 0, long: 0, joined: 0, checked: 0, wrong: 0 };
  readonly #port: Port;
  readonly #options: MiniTcpOptions;
  readonly #requests: OffloadRequests;
  readonly #burst: Burst;
  readonly #out: Burst;
  readonly #view: PacketView;
  readonly #received = createHash('sha256');
  /** Next byte of theirs, and of ours that they have not acknowledged; both from 0 on behind the SYNs. */
  #next = 0;
  #acknowledged = 0;
  #theirStart = -1;
  #window = 65_535;
  #windowShift = 0;
  #isFinished = false;
  #isReset = false;

  constructor(port: Port, options: MiniTcpOptions) {
    this.#port = port;
    this.#options = options;
    this.#requests = new OffloadRequests(port.pool);
    this.#burst = port.burst(64);
    this.#out = port.burst(1);
    this.#view = new PacketView(port.pool);
  }

  /** Bytes received, and their SHA-256 in hex: once, at the end. */
  result(): { readonly bytes: number; readonly sha256: string } {
    return { bytes: this.#next, sha256: this.#received.digest('hex') };
  }

  async connect(deadline: number): Promise<void> {
    for (let at = 0; this.#theirStart < 0; await this.#poll(deadline)) {
      if (Date.now() < at + AGAIN_MS) continue;
      at = Date.now();
      this.#send(-1, new Uint8Array(0), SYN);
    }
    this.#acknowledge();
  }

  /** Sends `count` bytes of the pattern; resolves to their SHA-256 in hex when all are acknowledged. */
  async send(count: number, deadline: number): Promise<string> {
    const data = new Uint8Array(count).map((_, at) => patternAt(at));
    let sent = 0;
    let movedAt = Date.now();
    while (this.#acknowledged < count) {
      const before = this.#acknowledged;
      await this.#poll(deadline);
      if (this.#acknowledged > before) movedAt = Date.now();
      if (Date.now() > movedAt + AGAIN_MS) {
        sent = this.#acknowledged;
        movedAt = Date.now();
      }
      sent = Math.max(sent, this.#acknowledged);
      for (let batch = 0; batch < DATA_BATCH; batch++) {
        const length = Math.min(PACKET_BYTES, count - sent, this.#window - (sent - this.#acknowledged));
        if (length <= 0) break;
        if (!this.#send(sent, data.subarray(sent, sent + length), ACK | PSH)) break;
        sent += length;
      }
    }
    return createHash('sha256').update(data).digest('hex');
  }

  /** Receives until the other side has no more. */
  async receiveAll(deadline: number): Promise<void> {
    while (!this.#isFinished) await this.#poll(deadline);
    this.#send(this.#acknowledged, new Uint8Array(0), ACK | FIN);
    this.#acknowledge();
  }

  async #poll(deadline: number): Promise<void> {
    await turn();
    if (Date.now() > deadline) throw new Error(`no end in sight: ${this.#acknowledged} bytes went, ${this.#next} came`);
    if (this.#isReset) throw new Error('the connection was reset');
    const burst = this.#burst;
    this.#port.rxQueue(0).receive(burst);
    const before = this.#next;
    let hasData = false;
    for (const handle of burst.handles.subarray(0, burst.count)) hasData = this.#take(handle) || hasData;
    burst.free();
    if (hasData || this.#next !== before) this.#acknowledge();
  }

  /** Looks at a packet; returns whether it has data, in order or not. */
  #take(handle: number): boolean {
    const flags = this.#port.pool.fields[handle * WORDS + FLAGS]!;
    const bytes = this.#view.move(handle).copyPacket();
    const at = this.#places(bytes);
    if (at === undefined) return false;
    const view = new DataView(bytes.buffer);
    const tcpFlags = bytes[at.transport + 13]!;
    this.#isReset ||= (tcpFlags & 0x04) !== 0;
    const sequence = view.getUint32(at.transport + 4);
    this.#note(bytes, flags, at.shape);
    if ((tcpFlags & SYN) !== 0) {
      this.#windowShift = windowShift(bytes.subarray(at.transport + 20, at.payload));
      this.#theirStart = (sequence + 1) >>> 0;
      this.#window = view.getUint16(at.transport + 14);
      return false;
    }
    this.#window = view.getUint16(at.transport + 14) << this.#windowShift;
    this.#acknowledged = Math.max(this.#acknowledged, (view.getUint32(at.transport + 8) - 1) | 0);
    const place = (sequence - this.#theirStart) | 0;
    const data = bytes.subarray(at.payload, at.end);
    if (place === this.#next && data.length > 0) {
      this.#received.update(data);
      this.#next += data.length;
    }
    if ((tcpFlags & FIN) !== 0 && place + data.length === this.#next) this.#isFinished = true;
    return data.length > 0;
  }

  #note(bytes: Uint8Array, flags: number, shape: PacketShape): void {
    const { arrivals } = this;
    arrivals.packets++;
    arrivals.longest = Math.max(arrivals.longest, bytes.length);
    if ((flags & (PacketFlag.SEGMENT_TCP4 | PacketFlag.SEGMENT_TCP6)) !== 0) arrivals.long++;
    if ((flags & PacketFlag.COALESCED) !== 0) arrivals.joined++;
    if ((flags & (PacketFlag.CHECKSUM_VALID | PacketFlag.NEEDS_CHECKSUM)) !== 0) arrivals.checked++;
    if ((flags & PacketFlag.NEEDS_CHECKSUM) !== 0) return;
    const field = new DataView(bytes.buffer).getUint16(placesOf(shape).transport + 16);
    // Linux writes 0xffff for 0 in TCP too: the same number.
    if (field % 0xffff !== transportChecksum(bytes, shape) % 0xffff) arrivals.wrong++;
  }

  /** Where things are in a packet of this connection; undefined for any other. */
  #places(bytes: Uint8Array) {
    const { version } = this.#options;
    const view = new DataView(bytes.buffer);
    if (bytes.length < 54 || view.getUint16(12) !== (version === 4 ? 0x0800 : 0x86dd)) return undefined;
    const transport = version === 4 ? 34 : 54;
    if (bytes[version === 4 ? 23 : 20] !== 6 || view.getUint16(transport) !== 5000) return undefined;
    const headerBytes = (bytes[transport + 12]! >>> 4) * 4;
    const end = version === 4 ? 14 + view.getUint16(16) : 54 + view.getUint16(18);
    const shape: PacketShape = { version, protocol: 'tcp', payload: bytes, tcpOptions: headerBytes / 4 - 5 };
    return { transport, payload: transport + headerBytes, end, shape };
  }

  #acknowledge(): void {
    this.#send(this.#acknowledged, new Uint8Array(0), ACK | (this.#isFinished ? FIN : 0));
  }

  /** Sends bytes at a place of our stream, which begins behind the SYN at -1; false where the ring is full. */
  #send(from: number, data: Uint8Array, flags: number): boolean {
    const { version, segmentBytes } = this.#options;
    const isSyn = (flags & SYN) !== 0;
    const shape: PacketShape = {
      version,
      protocol: 'tcp',
      payload: new Uint8Array(0),
      flags,
      sequence: (from + 1) >>> 0,
      tcpOptions: isSyn ? 2 : 0,
    };
    const header = packetOf(shape);
    const { network, transport } = placesOf(shape);
    const bytes = new Uint8Array(header.length + data.length);
    bytes.set([2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2]);
    bytes.set(header.subarray(12), 12);
    bytes.set(data, header.length);
    const view = new DataView(bytes.buffer);
    if (version === 4) {
      view.setUint16(network + 2, bytes.length - network);
      view.setUint16(network + 10, 0);
      view.setUint16(network + 10, checksum([bytes.subarray(network, transport)]));
    } else view.setUint16(network + 4, bytes.length - transport);
    if (isSyn) bytes.set([2, 4, segmentBytes >>> 8, segmentBytes & 0xff, 1, 3, 3, WINDOW_SHIFT], transport + 20);
    const next = (this.#theirStart + this.#next + (this.#isFinished ? 1 : 0)) >>> 0;
    view.setUint32(transport + 8, isSyn ? 0 : next);
    const handle = place(this.#port.pool, bytes);
    if (data.length > segmentBytes) this.#requests.segmentation(handle, segmentBytes);
    else this.#requests.checksum(handle);
    this.#out.handles[0] = handle;
    this.#out.count = 1;
    if (this.#port.txQueue(0).send(this.#out) === 1) return true;
    this.#out.free();
    return false;
  }
}

/** The window scale among a SYN's options (RFC 7323 §2.2). */
function windowShift(options: Uint8Array): number {
  for (let at = 0; at < options.length && options[at] !== 0; ) {
    if (options[at] === 3) return options[at + 2]!;
    at += options[at] === 1 ? 1 : Math.max(2, options[at + 1]!);
  }
  return 0;
}
