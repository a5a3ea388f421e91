/** Reads capture files: pcap and pcapng, whatever the machine that made them. */

import { ErrorCode, VirtioError } from '../errors.js';
import type { CapturedPacket, PacketSource } from './captured-packet.js';
import { fileKind } from './file-kind.js';
import { FileWindow } from './file-window.js';
import { PcapSource, pcapByteOrder } from './pcap-source.js';
import { isPcapng, PcapngSource } from './pcapng-source.js';

/** Bytes that are looked at to say what a file is. */
const HEAD_BYTES = 64;

/** Chooses the format by the file's first bytes. */
function sourceOf(window: FileWindow): PacketSource {
  const head = window.peek(HEAD_BYTES);
  const order = pcapByteOrder(head);
  if (order !== undefined) return new PcapSource(window, order === 'little');
  if (isPcapng(head)) return new PcapngSource(window);
  const { name, advice } = fileKind(new Uint8Array(head.buffer, head.byteOffset, head.byteLength));
  throw new VirtioError(ErrorCode.BAD_FORMAT, `${window.path} is not a capture file: ${name}`, {
    value: window.path,
    advice,
  });
}

/** A capture file, read packet by packet. Takes 320 KiB, whatever the file claims. */
export class PcapReader implements Iterable<CapturedPacket> {
  readonly #window: FileWindow;
  readonly #source: PacketSource;
  #failure: unknown;
  #open = true;

  private constructor(window: FileWindow) {
    this.#window = window;
    this.#source = sourceOf(window);
  }

  /**
   * Opens a pcap file (micro- or nanoseconds) or a pcapng file, of either byte order.
   *
   * @throws VirtioError NOT_FOUND, PERMISSION_DENIED, WRONG_KIND, IO; BAD_FORMAT when it is no capture, or not of
   *   Ethernet frames
   */
  static open(path: string): PcapReader {
    const window = new FileWindow(path);
    try {
      return new PcapReader(window);
    } catch (error) {
      window.close();
      throw error;
    }
  }

  /**
   * Returns the next packet, or undefined at the end of the file.
   *
   * @throws VirtioError BAD_FORMAT naming packet and byte where the file is damaged, cut off or not of Ethernet
   *   frames, and from then on; IO; WRONG_STATE once closed
   */
  next(): CapturedPacket | undefined {
    if (!this.#open) throw new VirtioError(ErrorCode.WRONG_STATE, `${this.#window.path} is closed`);
    if (this.#failure !== undefined) throw this.#failure;
    try {
      return this.#source.next();
    } catch (error) {
      this.#failure = error;
      throw error;
    }
  }

  /** The packets from here on. */
  *[Symbol.iterator](): Generator<CapturedPacket, void, undefined> {
    for (let packet = this.next(); packet !== undefined; packet = this.next()) yield packet;
  }

  /** Idempotent. */
  close(): void {
    this.#open = false;
    this.#window.close();
  }

  [Symbol.dispose](): void {
    this.close();
  }
}
