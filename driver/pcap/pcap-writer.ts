/** Writes capture files: pcap with nanoseconds, little-endian, Ethernet. */

import { closeSync, fstatSync, ftruncateSync, openSync, writeSync } from 'node:fs';

import { ErrorCode, VirtioError } from '../errors.js';
import { KiB } from '../units.js';
import { fileError } from './file-error.js';
import {
  LINKTYPE_ETHERNET,
  NANOSECONDS_PER_SECOND,
  PACKET_BYTES_MAX,
  PCAP_VERSION,
  PcapFileHeader,
  PcapMagic,
  PcapRecord,
} from './format.js';

/** Written at once; always whole packets, so it must hold the longest one. */
const CHUNK_BYTES = 512 * KiB;
const SECONDS_MAX = 0xffff_ffffn;

export interface PcapWriterOptions {
  /** Bytes of each packet that are kept, 1 to 262144 (the default). */
  readonly snapLength?: number;
  /** Go on behind the packets of a file that this has written before, instead of emptying it. */
  readonly append?: boolean;
}

function fileHeader(snapLength: number): Uint8Array {
  const view = new DataView(new ArrayBuffer(PcapFileHeader.BYTES));
  view.setUint32(PcapFileHeader.MAGIC, PcapMagic.NANOSECONDS, true);
  view.setUint16(PcapFileHeader.VERSION_MAJOR, PCAP_VERSION.MAJOR, true);
  view.setUint16(PcapFileHeader.VERSION_MINOR, PCAP_VERSION.MINOR, true);
  view.setUint32(PcapFileHeader.SNAP_LENGTH, snapLength, true);
  view.setUint32(PcapFileHeader.LINK_TYPE, LINKTYPE_ETHERNET, true);
  return new Uint8Array(view.buffer);
}

/**
 * A capture file that is being written.
 *
 * Packets collect in memory and are written half a megabyte at a time, synchronously. When writing fails, the file
 * is cut back to its last whole packet and closed.
 */
export class PcapWriter {
  readonly #path: string;
  readonly #snapLength: number;
  readonly #chunk = new Uint8Array(CHUNK_BYTES);
  readonly #view = new DataView(this.#chunk.buffer);
  #fd: number | undefined;
  #used = 0;
  #fileBytes = 0;
  #filePackets = 0;

  private constructor(path: string, snapLength: number, append: boolean) {
    this.#path = path;
    this.#snapLength = snapLength;
    try {
      this.#fd = openSync(path, append ? 'a' : 'w');
      this.#fileBytes = fstatSync(this.#fd).size;
    } catch (error) {
      throw fileError(error, `cannot create ${path}`, path);
    }
    if (this.#fileBytes > 0) return;
    this.#chunk.set(fileHeader(snapLength));
    this.#used = PcapFileHeader.BYTES;
    this.flush();
  }

  /**
   * Makes the file, or empties the one that is there, unless it is to be appended to.
   *
   * @throws VirtioError NOT_FOUND, PERMISSION_DENIED, WRONG_KIND, IO; INVALID_ARGUMENT for a bad `snapLength`
   */
  static create(path: string, options: PcapWriterOptions = {}): PcapWriter {
    const { snapLength = PACKET_BYTES_MAX, append = false } = options;
    if (!Number.isInteger(snapLength) || snapLength < 1 || snapLength > PACKET_BYTES_MAX) {
      throw new VirtioError(
        ErrorCode.INVALID_ARGUMENT,
        `a snap length of ${snapLength} is not possible: 1 to ${PACKET_BYTES_MAX}`,
        { value: snapLength },
      );
    }
    return new PcapWriter(path, snapLength, append);
  }

  /** Packets that are in the file; those still in memory are not counted. */
  get packets(): number {
    return this.#filePackets;
  }

  /**
   * Adds a packet; its length is kept even where its end is cut off at `snapLength`.
   *
   * @param timestampNs since 1970-01-01 UTC, up to the year 2106
   * @throws VirtioError IO when the disk is full or fails, WRONG_STATE once closed, INVALID_ARGUMENT for a timestamp
   *   that the format cannot hold
   */
  write(bytes: Uint8Array, timestampNs: bigint): void {
    if (this.#fd === undefined) throw new VirtioError(ErrorCode.WRONG_STATE, `${this.#path} is closed`);
    const seconds = timestampNs / NANOSECONDS_PER_SECOND;
    if (timestampNs < 0n || seconds > SECONDS_MAX) {
      const message = `a capture file cannot hold the time ${timestampNs} ns`;
      throw new VirtioError(ErrorCode.INVALID_ARGUMENT, message, { value: timestampNs });
    }
    const captured = Math.min(bytes.length, this.#snapLength);
    if (this.#used + PcapRecord.BYTES + captured > CHUNK_BYTES) this.flush();
    const at = this.#used;
    this.#view.setUint32(at + PcapRecord.SECONDS, Number(seconds), true);
    this.#view.setUint32(at + PcapRecord.FRACTION, Number(timestampNs % NANOSECONDS_PER_SECOND), true);
    this.#view.setUint32(at + PcapRecord.CAPTURED_LENGTH, captured, true);
    this.#view.setUint32(at + PcapRecord.ORIGINAL_LENGTH, bytes.length, true);
    this.#chunk.set(captured === bytes.length ? bytes : bytes.subarray(0, captured), at + PcapRecord.BYTES);
    this.#used = at + PcapRecord.BYTES + captured;
  }

  /** Writes what is in memory to the file. Errors as of `write`. */
  flush(): void {
    let done = 0;
    try {
      while (this.#fd !== undefined && done < this.#used) {
        done += writeSync(this.#fd, this.#chunk, done, this.#used - done);
      }
    } catch (error) {
      throw this.#giveUp(error, done);
    }
    this.#count(this.#used);
    this.#used = 0;
  }

  /** Writes what is left and closes the file; idempotent. Errors as of `write`, with the file closed all the same. */
  close(): void {
    if (this.#fd === undefined) return;
    this.flush();
    this.#closeFile();
  }

  [Symbol.dispose](): void {
    this.close();
  }

  /** Counts what of the chunk's first `bytes` bytes is whole. */
  #count(bytes: number): void {
    let at = 0;
    if (this.#fileBytes === 0 && bytes >= PcapFileHeader.BYTES) at = PcapFileHeader.BYTES;
    while (this.#fileBytes + at > 0 && at + PcapRecord.BYTES <= bytes) {
      const end = at + PcapRecord.BYTES + this.#view.getUint32(at + PcapRecord.CAPTURED_LENGTH, true);
      if (end > bytes) break;
      at = end;
      this.#filePackets++;
    }
    this.#fileBytes += at;
  }

  /** Cuts the file back to its last whole packet, closes it and returns the error. */
  #giveUp(cause: unknown, written: number): VirtioError {
    this.#count(written);
    const fd = this.#release();
    try {
      if (fd !== undefined) ftruncateSync(fd, this.#fileBytes);
    } catch {
      // Not a file that can be cut; the error below says what counts.
    }
    try {
      if (fd !== undefined) closeSync(fd);
    } catch {
      // As above.
    }
    const kept = `${this.#filePackets} packets (${this.#fileBytes} bytes)`;
    const what = `writing ${this.#path} failed; the file is closed with ${kept} in it`;
    return fileError(cause, what, this.#path, 'make room or choose another place');
  }

  #closeFile(): void {
    const fd = this.#release();
    try {
      if (fd !== undefined) closeSync(fd);
    } catch (error) {
      throw fileError(error, `closing ${this.#path} failed`, this.#path);
    }
  }

  /** Gives the descriptor up, to be closed once. */
  #release(): number | undefined {
    const fd = this.#fd;
    this.#fd = undefined;
    this.#used = 0;
    return fd;
  }
}
