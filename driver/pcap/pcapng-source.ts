/** Reads a pcapng file (draft-ietf-opsawg-pcapng): sections of blocks, packets from any number of interfaces. */

import type { VirtioError } from '../errors.js';
import type { CapturedPacket, PacketSource } from './captured-packet.js';
import { checkLength, checkLinkType, damaged, truncated } from './damage.js';
import type { FileWindow } from './file-window.js';
import {
  Block,
  BlockType,
  BYTE_ORDER_MAGIC,
  DEFAULT_RESOLUTION,
  EnhancedPacket,
  InterfaceDescription,
  InterfaceOption,
  NANOSECONDS_PER_SECOND,
  PCAPNG_MAJOR,
  SectionHeader,
  SimplePacket,
} from './format.js';

/** Largest interface description that is read: options beyond are not worth the memory. */
const INTERFACE_BYTES_MAX = 65_536;
/** Interfaces of one section, so that a file of nothing else cannot fill the memory. */
const INTERFACES_MAX = 65_536;
const BLOCK_BYTES_MIN = Block.HEADER_BYTES + Block.TRAILER_BYTES;

interface Interface {
  readonly linkType: number;
  /** 0 where packets are whole. */
  readonly snapLength: number;
  /** Timestamp units in a second. */
  readonly unitsPerSecond: bigint;
  readonly offsetSeconds: bigint;
}

/** Whether the first bytes are those of a pcapng file. */
export const isPcapng = (head: DataView): boolean =>
  head.byteLength >= 4 && head.getUint32(0, true) === BlockType.SECTION_HEADER;

/** Timestamp units in a second: the resolution is a power of ten, or of two with the top bit set (pcapng §4.2). */
const unitsOf = (resolution: number): bigint =>
  (resolution & 0x80) === 0 ? 10n ** BigInt(resolution) : 1n << BigInt(resolution & 0x7f);

const padded = (bytes: number): number => Math.ceil(bytes / 4) * 4;

export class PcapngSource implements PacketSource {
  readonly #window: FileWindow;
  #little = true;
  #interfaces: Interface[] = [];
  #packets = 0;
  /** Where the block that is being read begins, and its whole length. */
  #offset = 0;
  #blockBytes = 0;

  constructor(window: FileWindow) {
    this.#window = window;
  }

  next(): CapturedPacket | undefined {
    for (;;) {
      const type = this.#openBlock();
      if (type === undefined) return undefined;
      const packet = this.#readBlock(type);
      this.#closeBlock();
      if (packet === undefined) continue;
      this.#packets++;
      return packet;
    }
  }

  /** The error for something wrong in this block. */
  #damaged(what: string): VirtioError {
    return damaged(this.#window, this.#packets + 1, this.#offset, what);
  }

  #truncated(has: number): VirtioError {
    return truncated(this.#window, this.#packets + 1, this.#offset, has, this.#blockBytes);
  }

  /** Reads type and length of the next block; undefined at the end of the file. */
  #openBlock(): number | undefined {
    this.#offset = this.#window.offset;
    // A section header says in its body how its own length is to be read.
    const head = this.#window.peek(Block.HEADER_BYTES + 4);
    if (head.byteLength === 0) return undefined;
    this.#blockBytes = BLOCK_BYTES_MIN;
    if (head.byteLength < Block.HEADER_BYTES + 4) throw this.#truncated(head.byteLength);
    if (head.getUint32(Block.TYPE, true) === BlockType.SECTION_HEADER) this.#startSection(head);
    const type = head.getUint32(Block.TYPE, this.#little);
    const bytes = head.getUint32(Block.TOTAL_LENGTH, this.#little);
    if (bytes < BLOCK_BYTES_MIN || bytes % 4 !== 0) throw this.#damaged(`a block cannot have ${bytes} bytes`);
    this.#blockBytes = bytes;
    return type;
  }

  /** A section stands for itself: its own byte order, its own interfaces (pcapng §4.1). */
  #startSection(head: DataView): void {
    const little = head.getUint32(Block.HEADER_BYTES, true) === BYTE_ORDER_MAGIC;
    if (!little && head.getUint32(Block.HEADER_BYTES, false) !== BYTE_ORDER_MAGIC) {
      throw this.#damaged('a section header without byte order');
    }
    this.#little = little;
    this.#interfaces = [];
  }

  #readBlock(type: number): CapturedPacket | undefined {
    switch (type) {
      case BlockType.SECTION_HEADER: {
        const major = this.#body(SectionHeader.BYTES).getUint16(SectionHeader.VERSION_MAJOR, this.#little);
        if (major !== PCAPNG_MAJOR) throw this.#damaged(`pcapng version ${major} is not known`);
        return undefined;
      }
      case BlockType.INTERFACE_DESCRIPTION:
        this.#addInterface();
        return undefined;
      case BlockType.ENHANCED_PACKET:
        return this.#enhancedPacket(false);
      case BlockType.PACKET:
        return this.#enhancedPacket(true);
      case BlockType.SIMPLE_PACKET:
        return this.#simplePacket();
      default:
        return undefined;
    }
  }

  /** The first `bytes` bytes of the block's body. */
  #body(bytes: number): DataView {
    const end = Block.HEADER_BYTES + bytes;
    if (end + Block.TRAILER_BYTES > this.#blockBytes) {
      throw this.#damaged(`a block of ${this.#blockBytes} bytes is too short for what it holds`);
    }
    const block = this.#window.peek(end);
    if (block.byteLength < end) throw this.#truncated(block.byteLength);
    return new DataView(block.buffer, block.byteOffset + Block.HEADER_BYTES, bytes);
  }

  /** Goes past the block and compares the length at its end. */
  #closeBlock(): void {
    const rest = this.#blockBytes - Block.TRAILER_BYTES;
    const skipped = this.#window.skip(rest);
    const trailer = this.#window.peek(Block.TRAILER_BYTES);
    if (skipped < rest || trailer.byteLength < Block.TRAILER_BYTES) throw this.#truncated(skipped + trailer.byteLength);
    const again = trailer.getUint32(0, this.#little);
    if (again !== this.#blockBytes) {
      throw this.#damaged(`the block has ${this.#blockBytes} bytes by its beginning, ${again} by its end`);
    }
    this.#window.skip(Block.TRAILER_BYTES);
  }

  #addInterface(): void {
    const bodyBytes = this.#blockBytes - BLOCK_BYTES_MIN;
    if (this.#blockBytes > INTERFACE_BYTES_MAX) {
      throw this.#damaged(`an interface description of ${this.#blockBytes} bytes: the file is damaged`);
    }
    if (this.#interfaces.length === INTERFACES_MAX) {
      throw this.#damaged(`more than ${INTERFACES_MAX} interfaces: the file is damaged`);
    }
    const body = this.#body(Math.max(bodyBytes, InterfaceDescription.BYTES));
    const options = this.#interfaceOptions(body);
    this.#interfaces.push({
      linkType: body.getUint16(InterfaceDescription.LINK_TYPE, this.#little),
      snapLength: body.getUint32(InterfaceDescription.SNAP_LENGTH, this.#little),
      unitsPerSecond: unitsOf(options.resolution),
      offsetSeconds: options.offsetSeconds,
    });
  }

  /** Walks the options: a code, a length, a value padded to four bytes (pcapng §3.5). */
  #interfaceOptions(body: DataView): { readonly resolution: number; readonly offsetSeconds: bigint } {
    let resolution = DEFAULT_RESOLUTION;
    let offsetSeconds = 0n;
    let at: number = InterfaceDescription.BYTES;
    while (at + 4 <= body.byteLength) {
      const code = body.getUint16(at, this.#little);
      const length = body.getUint16(at + 2, this.#little);
      if (code === InterfaceOption.END) break;
      if (at + 4 + length > body.byteLength) throw this.#damaged('an option reaches beyond its block');
      if (code === InterfaceOption.TIMESTAMP_RESOLUTION && length === 1) resolution = body.getUint8(at + 4);
      if (code === InterfaceOption.TIMESTAMP_OFFSET && length === 8) {
        offsetSeconds = body.getBigInt64(at + 4, this.#little);
      }
      at += 4 + padded(length);
    }
    return { resolution, offsetSeconds };
  }

  #interfaceOf(number: number): Interface {
    const found = this.#interfaces[number];
    if (found === undefined) {
      throw this.#damaged(`interface ${number} of ${this.#interfaces.length} that are described`);
    }
    checkLinkType(this.#window.path, found.linkType);
    return found;
  }

  /** Packet data, which follow `headBytes` bytes of the body. */
  #data(headBytes: number, bytes: number): Uint8Array {
    checkLength(this.#window, this.#packets + 1, this.#offset, bytes);
    const body = this.#body(headBytes + bytes);
    return new Uint8Array(body.buffer, body.byteOffset + headBytes, bytes).slice();
  }

  /** An enhanced packet, or its forerunner: that has the interface in 16 bits, and else the same places. */
  #enhancedPacket(old: boolean): CapturedPacket {
    const head = this.#body(EnhancedPacket.BYTES);
    const number = old
      ? head.getUint16(EnhancedPacket.INTERFACE, this.#little)
      : head.getUint32(EnhancedPacket.INTERFACE, this.#little);
    const { unitsPerSecond, offsetSeconds } = this.#interfaceOf(number);
    const high = BigInt(head.getUint32(EnhancedPacket.TIMESTAMP_HIGH, this.#little));
    const units = (high << 32n) | BigInt(head.getUint32(EnhancedPacket.TIMESTAMP_LOW, this.#little));
    const captured = head.getUint32(EnhancedPacket.CAPTURED_LENGTH, this.#little);
    const originalLength = head.getUint32(EnhancedPacket.ORIGINAL_LENGTH, this.#little);
    return {
      timestampNs: (units * NANOSECONDS_PER_SECOND) / unitsPerSecond + offsetSeconds * NANOSECONDS_PER_SECOND,
      bytes: this.#data(EnhancedPacket.BYTES, captured),
      originalLength,
    };
  }

  /** A packet without timestamp, of interface 0; its captured length follows from the snap length (pcapng §4.4). */
  #simplePacket(): CapturedPacket {
    const originalLength = this.#body(SimplePacket.BYTES).getUint32(SimplePacket.ORIGINAL_LENGTH, this.#little);
    const { snapLength } = this.#interfaceOf(0);
    const captured = snapLength === 0 ? originalLength : Math.min(snapLength, originalLength);
    return { timestampNs: 0n, bytes: this.#data(SimplePacket.BYTES, captured), originalLength };
  }
}
