/** Reads a pcap file (draft-ietf-opsawg-pcap): a header, then packets. */

import { ErrorCode, VirtioError } from '../errors.js';
import type { CapturedPacket, PacketSource } from './captured-packet.js';
import { checkLength, checkLinkType, truncated } from './damage.js';
import type { FileWindow } from './file-window.js';
import {
  NANOSECONDS_PER_SECOND,
  PCAP_MINOR_OLDEST,
  PCAP_VERSION,
  PcapFileHeader,
  PcapMagic,
  PcapRecord,
} from './format.js';

const NANOSECONDS_PER_MICROSECOND = 1000n;

/** Whether the first bytes are those of a pcap file, and in which byte order. */
export function pcapByteOrder(head: DataView): 'little' | 'big' | undefined {
  if (head.byteLength < 4) return undefined;
  const magics: readonly number[] = Object.values(PcapMagic);
  if (magics.includes(head.getUint32(0, true))) return 'little';
  return magics.includes(head.getUint32(0, false)) ? 'big' : undefined;
}

export class PcapSource implements PacketSource {
  readonly #window: FileWindow;
  readonly #little: boolean;
  readonly #fractionNs: bigint;
  #packets = 0;

  /** @throws VirtioError BAD_FORMAT for a header that is cut off, of another version, or not of Ethernet frames */
  constructor(window: FileWindow, little: boolean) {
    this.#window = window;
    this.#little = little;
    const header = window.peek(PcapFileHeader.BYTES);
    if (header.byteLength < PcapFileHeader.BYTES) {
      throw new VirtioError(
        ErrorCode.BAD_FORMAT,
        `${window.path}: the file ends after ${header.byteLength} of the ${PcapFileHeader.BYTES} bytes of a pcap header`,
        { value: header.byteLength, advice: 'capture it again' },
      );
    }
    const major = header.getUint16(PcapFileHeader.VERSION_MAJOR, little);
    const minor = header.getUint16(PcapFileHeader.VERSION_MINOR, little);
    if (major !== PCAP_VERSION.MAJOR || minor < PCAP_MINOR_OLDEST) {
      const message = `${window.path}: pcap version ${major}.${minor} is not known`;
      throw new VirtioError(ErrorCode.BAD_FORMAT, message, {
        value: `${major}.${minor}`,
        advice: 'convert it with editcap',
      });
    }
    checkLinkType(window.path, header.getUint32(PcapFileHeader.LINK_TYPE, little) & 0xffff);
    const magic = header.getUint32(PcapFileHeader.MAGIC, little);
    this.#fractionNs = magic === PcapMagic.NANOSECONDS ? 1n : NANOSECONDS_PER_MICROSECOND;
    window.skip(PcapFileHeader.BYTES);
  }

  next(): CapturedPacket | undefined {
    const { offset } = this.#window;
    const number = this.#packets + 1;
    const header = this.#window.peek(PcapRecord.BYTES);
    if (header.byteLength === 0) return undefined;
    if (header.byteLength < PcapRecord.BYTES) {
      throw truncated(this.#window, number, offset, header.byteLength, PcapRecord.BYTES);
    }
    const length = header.getUint32(PcapRecord.CAPTURED_LENGTH, this.#little);
    checkLength(this.#window, number, offset, length);
    const record = this.#window.peek(PcapRecord.BYTES + length);
    if (record.byteLength < PcapRecord.BYTES + length) {
      throw truncated(this.#window, number, offset, record.byteLength, PcapRecord.BYTES + length);
    }
    const seconds = BigInt(record.getUint32(PcapRecord.SECONDS, this.#little));
    const fraction = BigInt(record.getUint32(PcapRecord.FRACTION, this.#little));
    const packet = {
      timestampNs: seconds * NANOSECONDS_PER_SECOND + fraction * this.#fractionNs,
      bytes: new Uint8Array(record.buffer, record.byteOffset + PcapRecord.BYTES, length).slice(),
      originalLength: record.getUint32(PcapRecord.ORIGINAL_LENGTH, this.#little),
    };
    this.#window.skip(record.byteLength);
    this.#packets = number;
    return packet;
  }
}
