/** Writes pcapng files: one section, little-endian, Ethernet, with nanoseconds. Several threads may append to one file. */

import { closeSync, openSync, writeSync } from 'node:fs';

import { ErrorCode, VirtioError } from '../errors.js';
import { KiB } from '../units.js';
import { fileError } from './file-error.js';
import {
  Block,
  BlockType,
  BYTE_ORDER_MAGIC,
  EnhancedPacket,
  InterfaceOption,
  LINKTYPE_ETHERNET,
  PACKET_BYTES_MAX,
  type PacketDirection,
  PacketOption,
  PCAPNG_MAJOR,
  SectionHeader,
  SectionOption,
} from './format.js';

/** Appended at once; always whole blocks, so it must hold the longest one. */
const CHUNK_BYTES = 512 * KiB;
/** Option header, and the option that ends a list (pcapng §3.5). */
const OPTION_BYTES = 4;
/** Options of a packet: its direction, its queue, the end. */
const PACKET_OPTIONS_BYTES = 3 * OPTION_BYTES + 4 + 4;
const NANOSECONDS = 9;
const UNKNOWN_LENGTH = -1n;

/** A port whose packets the file has. */
export interface CaptureInterface {
  readonly name: string;
  readonly description: string;
  /** Six bytes. */
  readonly macAddress: Uint8Array;
}

/** Where and when a packet was seen. */
export interface PacketOrigin {
  /** Number of its interface in the file, from 0. */
  readonly source: number;
  readonly direction: PacketDirection;
  readonly queue: number;
  /** Since 1970-01-01 UTC. */
  readonly timestampNs: bigint;
}

const padded = (bytes: number): number => (bytes + 3) & ~3;

function option(code: number, value: Uint8Array): Uint8Array {
  const bytes = new Uint8Array(OPTION_BYTES + padded(value.length));
  const view = new DataView(bytes.buffer);
  view.setUint16(0, code, true);
  view.setUint16(2, value.length, true);
  bytes.set(value, OPTION_BYTES);
  return bytes;
}

const text = (value: string): Uint8Array => new TextEncoder().encode(value);
const END = option(InterfaceOption.END, new Uint8Array());

/** A block of its body's parts, with its length at both ends (pcapng §3.1). */
function block(type: number, ...parts: readonly Uint8Array[]): Uint8Array {
  const body = Buffer.concat(parts);
  const bytes = new Uint8Array(Block.HEADER_BYTES + body.length + Block.TRAILER_BYTES);
  const view = new DataView(bytes.buffer);
  view.setUint32(Block.TYPE, type, true);
  view.setUint32(Block.TOTAL_LENGTH, bytes.length, true);
  bytes.set(body, Block.HEADER_BYTES);
  view.setUint32(bytes.length - Block.TRAILER_BYTES, bytes.length, true);
  return bytes;
}

/** pcapng §4.1: the section's length is not known, as more is appended. */
function sectionHeader(application: string): Uint8Array {
  const body = new DataView(new ArrayBuffer(SectionHeader.BYTES));
  body.setUint32(SectionHeader.BYTE_ORDER, BYTE_ORDER_MAGIC, true);
  body.setUint16(SectionHeader.VERSION_MAJOR, PCAPNG_MAJOR, true);
  body.setBigInt64(SectionHeader.LENGTH, UNKNOWN_LENGTH, true);
  const options = [option(SectionOption.APPLICATION, text(application)), END];
  return block(BlockType.SECTION_HEADER, new Uint8Array(body.buffer), ...options);
}

/** pcapng §4.2: packets are whole, so there is no snap length. */
function interfaceDescription({ name, description, macAddress }: CaptureInterface): Uint8Array {
  const linkType = Uint8Array.of(LINKTYPE_ETHERNET, 0, 0, 0, 0, 0, 0, 0);
  return block(
    BlockType.INTERFACE_DESCRIPTION,
    linkType,
    option(InterfaceOption.NAME, text(name)),
    option(InterfaceOption.DESCRIPTION, text(description)),
    option(InterfaceOption.MAC_ADDRESS, macAddress),
    option(InterfaceOption.TIMESTAMP_RESOLUTION, Uint8Array.of(NANOSECONDS)),
    END,
  );
}

/**
 * Makes a file, or empties the one that is there, with a section and its interfaces; `PcapngWriter` appends packets.
 *
 * @throws VirtioError NOT_FOUND, PERMISSION_DENIED, WRONG_KIND, IO
 */
export function createPcapng(path: string, application: string, interfaces: readonly CaptureInterface[]): void {
  const blocks = [sectionHeader(application), ...interfaces.map(interfaceDescription)];
  let fd: number | undefined;
  try {
    fd = openSync(path, 'w');
    writeSync(fd, Buffer.concat(blocks));
  } catch (error) {
    throw fileError(error, `cannot create ${path}`, path);
  } finally {
    if (fd !== undefined) closeSync(fd);
  }
}

/**
 * Appends packets to a file that `createPcapng` made.
 *
 * They collect in memory, and are appended half a megabyte at a time in one call, so that blocks of several writers do not
 * run into each other.
 */
export class PcapngWriter {
  readonly #path: string;
  readonly #chunk = new Uint8Array(CHUNK_BYTES);
  readonly #view = new DataView(this.#chunk.buffer);
  #fd: number | undefined;
  #used = 0;

  /** @throws VirtioError NOT_FOUND, PERMISSION_DENIED, WRONG_KIND, IO */
  constructor(path: string) {
    this.#path = path;
    try {
      this.#fd = openSync(path, 'a');
    } catch (error) {
      throw fileError(error, `cannot open ${path}`, path);
    }
  }

  /**
   * Adds a packet.
   *
   * @throws VirtioError IO when the disk is full or fails, WRONG_STATE once closed, INVALID_ARGUMENT for a packet of more than
   *   262144 bytes
   */
  write(packet: Uint8Array, { source, direction, queue, timestampNs }: PacketOrigin): void {
    const bytes = packet.length;
    if (this.#fd === undefined) throw new VirtioError(ErrorCode.WRONG_STATE, `${this.#path} is closed`);
    if (bytes > PACKET_BYTES_MAX) {
      const message = `a packet of ${bytes} bytes is beyond the limit of ${PACKET_BYTES_MAX}`;
      throw new VirtioError(ErrorCode.INVALID_ARGUMENT, message, { value: bytes });
    }
    const data = Block.HEADER_BYTES + EnhancedPacket.BYTES;
    const length = data + padded(bytes) + PACKET_OPTIONS_BYTES + Block.TRAILER_BYTES;
    if (this.#used + length > CHUNK_BYTES) this.flush();
    const at = this.#used;
    const view = this.#view;
    view.setUint32(at + Block.TYPE, BlockType.ENHANCED_PACKET, true);
    view.setUint32(at + Block.TOTAL_LENGTH, length, true);
    const body = at + Block.HEADER_BYTES;
    view.setUint32(body + EnhancedPacket.INTERFACE, source, true);
    view.setUint32(body + EnhancedPacket.TIMESTAMP_HIGH, Number(timestampNs >> 32n), true);
    view.setUint32(body + EnhancedPacket.TIMESTAMP_LOW, Number(timestampNs & 0xffff_ffffn), true);
    view.setUint32(body + EnhancedPacket.CAPTURED_LENGTH, bytes, true);
    view.setUint32(body + EnhancedPacket.ORIGINAL_LENGTH, bytes, true);
    const options = at + data + padded(bytes);
    this.#chunk.fill(0, at + data + bytes, options);
    this.#word(options, PacketOption.FLAGS, direction);
    this.#word(options + 2 * OPTION_BYTES, PacketOption.QUEUE, queue);
    view.setUint32(options + 4 * OPTION_BYTES, InterfaceOption.END, true);
    view.setUint32(at + length - Block.TRAILER_BYTES, length, true);
    this.#chunk.set(packet, at + data);
    this.#used = at + length;
  }

  /** An option of one 32-bit word. */
  #word(at: number, code: number, value: number): void {
    this.#view.setUint16(at, code, true);
    this.#view.setUint16(at + 2, 4, true);
    this.#view.setUint32(at + OPTION_BYTES, value, true);
  }

  /** Appends what is in memory to the file. Errors as of `write`; the file is closed then. */
  flush(): void {
    const used = this.#used;
    this.#used = 0;
    try {
      for (let done = 0; this.#fd !== undefined && done < used; ) {
        done += writeSync(this.#fd, this.#chunk, done, used - done);
      }
    } catch (error) {
      this.#release();
      throw fileError(error, `writing ${this.#path} failed`, this.#path, 'make room or choose another place');
    }
  }

  /** Appends what is left and closes the file; idempotent. */
  close(): void {
    this.flush();
    this.#release();
  }

  [Symbol.dispose](): void {
    this.close();
  }

  #release(): void {
    const fd = this.#fd;
    this.#fd = undefined;
    if (fd !== undefined) closeSync(fd);
  }
}
