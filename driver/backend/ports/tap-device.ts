/** A tap interface of the host's kernel, in bursts of packets. */

import { native, TAP_REFUSED, TapBuffer, TapOffload } from '../../../native/index.js';
import { ErrorCode, isSystemError, VirtioError } from '../../errors.js';
import type { Burst } from '../../memory/burst.js';
import { PacketField, PacketFlag } from '../../memory/packet-fields.js';
import type { PacketPool } from '../../memory/packet-pool.js';
import { HeaderVerdict, NetHeaderReader, NetHeaderWriter } from '../../offload/header.js';
import { ALL_WORK } from '../../offload/work.js';
import { MAX_PACKET_BYTES } from '../../spec/ethernet.js';
import { virtioNetHdr } from '../../spec/net-header.js';
import { tapOffloads } from './tap-offloads.js';

export interface TapDeviceOptions {
  /** Name of the interface, 1 to 15 characters. It is made where it is not there, and is gone with the port then. */
  readonly name: string;
  /** What packets from the kernel may leave to their receivers, of `TapOffload`. Default: what the receivers do. */
  readonly offloads?: number | undefined;
  /** The interface, or a queue of it, opened by somebody else, who closes it; frames have a header of 12 bytes. */
  readonly fd?: number | undefined;
}

/** Packets that a call reads, and buffers that a call writes, at most. */
export const TAP_BURST = 32;
const WRITE_BUFFERS = 128;
const HEADER_BYTES = virtioNetHdr.bytes;
/** The kernel's own words for an interface that is not there any more. */
const GONE = ['EBADF', 'EFAULT', 'ENODEV'];
/** The one that a tap which was deleted answers with: libuv has no name for it. */
const EBADFD_NUMBER = -77;
/** Calls without a look at an interface that cannot be read, less one: a power of two. */
const PAUSE_MASK = 0xfff;

const { DATA_OFFSET, SEGMENT_LENGTH, NEXT, PACKET_LENGTH, WORDS_SHIFT } = PacketField;
const { OFFSET, BYTES, FRAME, WORDS } = TapBuffer;

/** Reads and writes without waiting, straight from and to the buffers of the pool. */
export class TapDevice {
  readonly name: string;
  /** Work that the kernel does on packets that are written, as `PacketFlag`s. */
  readonly takesWork: number;
  /** Packets that the kernel refused, and those from it that were: their header cannot be. */
  refused = 0;
  readonly #pool: PacketPool;
  readonly #fd: number;
  readonly #ownsFd: boolean;
  readonly #offloads: number | undefined;
  readonly #reader: NetHeaderReader;
  readonly #writer: NetHeaderWriter;
  /** Buffers that the next packets are read into, and behind them those for what is longer than a buffer. */
  readonly #posted: Uint32Array;
  readonly #spares: number;
  readonly #readList: Uint32Array;
  readonly #writeList = new Uint32Array(WRITE_BUFFERS * WORDS);
  readonly #taken = new Uint32Array(1);
  #isPosted = false;
  #isOpen = true;
  #isGone = false;
  #pause = 0;

  /** @throws VirtioError PERMISSION_DENIED, NOT_FOUND, IN_USE, WRONG_KIND, INVALID_ARGUMENT, IO */
  constructor(pool: PacketPool, options: TapDeviceOptions) {
    const { name, offloads, fd } = options;
    this.#pool = pool;
    this.#spares = Math.ceil(MAX_PACKET_BYTES / pool.dataBytes);
    this.#posted = new Uint32Array(TAP_BURST + this.#spares);
    this.#readList = new Uint32Array(this.#posted.length * WORDS);
    this.#offloads = offloads;
    this.#reader = new NetHeaderReader(pool, ALL_WORK | PacketFlag.CHECKSUM_VALID);
    this.#writer = new NetHeaderWriter(pool, HEADER_BYTES, ALL_WORK | PacketFlag.CHECKSUM_VALID);
    const opened = fd === undefined ? openTap(name, offloads ?? 0) : { name, fd };
    this.#ownsFd = fd === undefined;
    this.#fd = opened.fd;
    this.name = opened.name;
    this.takesWork = this.#cutsUdp() ? ALL_WORK : ALL_WORK & ~PacketFlag.SEGMENT_UDP;
  }

  /** Whether the interface was taken away from under us. */
  get isGone(): boolean {
    return this.#isGone;
  }

  /** Has the kernel leave work on the packets that are read to receivers that do it, as `PacketFlag`s. */
  leave(work: number): void {
    if (this.#offloads !== undefined || this.#isGone) return;
    try {
      native.setTapOffloads(this.#fd, tapOffloads(work & this.takesWork));
    } catch (error) {
      // Of an interface that is gone, which the next packet tells.
      if (!isSystemError(error)) throw error;
    }
  }

  /** Adds packets from the kernel to the burst, which has room for `TAP_BURST` of them; returns how many. */
  read(burst: Burst): number {
    if (!this.#mayRead()) return 0;
    let frames: number;
    try {
      frames = native.readTap(this.#fd, this.#pool.memory.buffer, this.#readList, TAP_BURST, this.#spares);
    } catch (error) {
      this.#pause = PAUSE_MASK;
      if (isSystemError(error) && (error.errno === EBADFD_NUMBER || GONE.includes(error.code))) this.#isGone = true;
      return 0;
    }
    let added = 0;
    for (let frame = 0; frame < frames; frame++) {
      if (this.#take(burst, frame)) added += 1;
    }
    if (frames > 0) this.#isPosted = this.#post(frames);
    return added;
  }

  /** Gives packets from the front of the burst to the kernel, as far as it takes them; returns how many left the burst. */
  write(burst: Burst): number {
    if (burst.count === 0 || !this.#isOpen) return 0;
    const { fields } = this.#pool;
    const list = this.#writeList;
    let buffers = 0;
    let packets = 0;
    for (; packets < burst.count; packets++) {
      const handle = burst.handles[packets]!;
      const segments = fields[(handle << WORDS_SHIFT) + NEXT] === 0 ? 1 : this.#pool.segments(handle);
      if (buffers + segments > WRITE_BUFFERS) break;
      this.#describe(handle, buffers);
      buffers += segments;
    }
    const result = this.#isGone ? 0 : native.writeTap(this.#fd, this.#pool.memory.buffer, list, buffers);
    this.refused += this.#isGone ? packets : Math.floor(result / TAP_REFUSED);
    const written = this.#isGone ? buffers : result % TAP_REFUSED;
    let done = 0;
    // A packet of more buffers than there are entries is no packet: it goes as one that was refused.
    if (packets === 0) {
      done = 1;
      this.refused += 1;
    }
    for (let at = 0; at < written; at++) if (list[at * WORDS + FRAME] === 0) done += 1;
    this.#pool.free(burst.handles, 0, done);
    burst.removeFirst(done);
    return done;
  }

  /** Closes the interface, which is gone then unless it was there before, and frees what it holds. Idempotent. */
  close(): void {
    if (!this.#isOpen) return;
    this.#isOpen = false;
    if (this.#ownsFd) native.closeFd(this.#fd);
    for (let index = 0; index < this.#posted.length; index++) {
      if (this.#readList[index * WORDS + BYTES] !== 0) this.#pool.free(this.#posted, index, 1);
    }
  }

  /** Whether this kernel knows of UDP segments (Linux 6.2): one that does takes what it would leave to others. */
  #cutsUdp(): boolean {
    const usual = this.#offloads ?? 0;
    try {
      native.setTapOffloads(this.#fd, TapOffload.CHECKSUM | TapOffload.USO4 | TapOffload.USO6);
      native.setTapOffloads(this.#fd, usual);
      return true;
    } catch (error) {
      if (!isSystemError(error)) throw error;
      return false;
    }
  }

  #mayRead(): boolean {
    if (!this.#isOpen) return false;
    if (this.#isGone || this.#pause > 0) {
      this.#pause -= 1;
      return false;
    }
    if (!this.#isPosted) this.#isPosted = this.#post(this.#posted.length);
    return this.#isPosted;
  }

  /** Takes buffers for those among the first `count` places and the spare ones that have none; false when there are too few. */
  #post(count: number): boolean {
    const list = this.#readList;
    const { offset, bufferBytes, headroom, dataBytes } = this.#pool;
    for (let index = 0; index < this.#posted.length; index++) {
      if (index === Math.min(count, TAP_BURST)) index = TAP_BURST;
      const at = index * WORDS;
      if (list[at + BYTES] !== 0) continue;
      if (!this.#pool.take(this.#taken, 0, 1)) return false;
      const handle = this.#taken[0]!;
      const headerBytes = index < TAP_BURST ? HEADER_BYTES : 0;
      this.#posted[index] = handle;
      this.#pool.fields[(handle << WORDS_SHIFT) + DATA_OFFSET] = headroom;
      list[at + OFFSET] = offset + handle * bufferBytes + headroom - headerBytes;
      list[at + BYTES] = dataBytes + headerBytes;
    }
    return true;
  }

  /** Adds the packet in a posted buffer to the burst; false when it was none. The place has no buffer then. */
  #take(burst: Burst, frame: number): boolean {
    const { fields, dataBytes } = this.#pool;
    const handle = this.#posted[frame]!;
    const field = handle << WORDS_SHIFT;
    const length = this.#readList[frame * WORDS + FRAME]! - HEADER_BYTES;
    const first = length < dataBytes ? length : dataBytes;
    this.#readList[frame * WORDS + BYTES] = 0;
    fields[field + SEGMENT_LENGTH] = first;
    fields[field + PACKET_LENGTH] = length;
    if (length > first) this.#chain(field, length - first);
    const header = this.#pool.offset + handle * this.#pool.bufferBytes + fields[field + DATA_OFFSET]! - HEADER_BYTES;
    if (this.#reader.read(handle, header) !== HeaderVerdict.SOUND) {
      this.refused += 1;
      this.#taken[0] = handle;
      this.#pool.free(this.#taken, 0, 1);
      return false;
    }
    burst.handles[burst.count++] = handle;
    return true;
  }

  /** Appends spare buffers with `length` bytes to the packet whose fields are at `field`. */
  #chain(field: number, length: number): void {
    const { fields, dataBytes } = this.#pool;
    let last = field;
    let left = length;
    for (let index = TAP_BURST; left > 0; index++) {
      const handle = this.#posted[index]!;
      this.#readList[index * WORDS + BYTES] = 0;
      fields[last + NEXT] = handle + 1;
      last = handle << WORDS_SHIFT;
      fields[last + SEGMENT_LENGTH] = left < dataBytes ? left : dataBytes;
      left -= dataBytes;
    }
  }

  /** Writes the entries of a packet's buffers, from `first` on, and its header. */
  #describe(handle: number, first: number): void {
    const { fields, offset, bufferBytes } = this.#pool;
    const list = this.#writeList;
    let at = first * WORDS;
    let headerBytes = HEADER_BYTES;
    for (let next = handle + 1; next !== 0; at += WORDS) {
      const field = (next - 1) << WORDS_SHIFT;
      const start = offset + (next - 1) * bufferBytes + fields[field + DATA_OFFSET]! - headerBytes;
      if (headerBytes !== 0) this.#writer.write(handle, start);
      list[at + OFFSET] = start;
      list[at + BYTES] = fields[field + SEGMENT_LENGTH]! + headerBytes;
      headerBytes = 0;
      next = fields[field + NEXT]!;
      list[at + FRAME] = next === 0 ? 0 : 1;
    }
  }
}

function openTap(name: string, offloads: number): { name: string; fd: number } {
  try {
    return native.openTap(name, HEADER_BYTES, offloads);
  } catch (cause) {
    if (!isSystemError(cause)) throw cause;
    const [code, why, advice] = reasonOf(cause.code, cause.syscall, name);
    throw new VirtioError(code, `the tap interface ${name} cannot be opened: ${why}`, {
      value: name,
      ...(advice === undefined ? {} : { advice }),
      cause,
    });
  }
}

function reasonOf(code: string, syscall: string, name: string): [code: ErrorCode, why: string, advice?: string] {
  if (syscall === 'open' && (code === 'ENOENT' || code === 'ENODEV' || code === 'ENXIO')) {
    return [ErrorCode.NOT_FOUND, 'this kernel has no tap interfaces', 'load the module: modprobe tun'];
  }
  switch (code) {
    case 'EPERM':
    case 'EACCES':
      return [
        ErrorCode.PERMISSION_DENIED,
        'that takes CAP_NET_ADMIN',
        `run as root, or have root make it for you: ip tuntap add ${name} mode tap vnet_hdr user $USER`,
      ];
    case 'EBUSY':
      return [ErrorCode.IN_USE, 'another program has it', 'name another interface'];
    case 'ENAMETOOLONG':
      return [ErrorCode.INVALID_ARGUMENT, 'a name has 15 characters at most'];
    case 'EINVAL':
      return [
        ErrorCode.WRONG_KIND,
        'there is an interface of this name that is no tap, or no interface can have it',
        `see what it is: ip -details link show ${name}`,
      ];
    default:
      return [ErrorCode.IO, `${syscall} failed with ${code}`];
  }
}
