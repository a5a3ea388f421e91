/** Packets of a capture file: read once, then sent as they are. */

import { ErrorCode, VirtioError } from '../../errors.js';
import { PcapReader } from '../../pcap/pcap-reader.js';
import { EthernetHeader } from '../../spec/internet.js';
import type { Capture } from './capture-content.js';
import { LARGEST_PACKET } from './options.js';

/** What is kept in memory at most. */
const CAPTURE_BYTES_MAX = 2 ** 30;
/** Packets between two looks at what else the process has to do. */
const PACKETS_A_TURN = 4096;

/**
 * Reads a whole capture.
 *
 * @throws VirtioError as `PcapReader`; BAD_FORMAT without packets, or with one that no device takes; NO_RESOURCES beyond
 *   1 GiB; ABORTED
 */
export async function loadCapture(path: string, signal: AbortSignal): Promise<Capture> {
  using reader = PcapReader.open(path);
  const lengths: number[] = [];
  const starts: number[] = [];
  const timestamps: bigint[] = [];
  let store = new Uint8Array(new SharedArrayBuffer(2 ** 20));
  let used = 0;
  let cutOff = 0;
  for (const { bytes, originalLength, timestampNs } of reader) {
    if (bytes.length < EthernetHeader.BYTES || bytes.length > LARGEST_PACKET)
      throw notSendable(path, lengths.length, bytes.length);
    if (used + bytes.length > CAPTURE_BYTES_MAX) throw tooLarge(path);
    if (used + bytes.length > store.length) {
      const larger = new Uint8Array(new SharedArrayBuffer(2 * store.length));
      larger.set(store);
      store = larger;
    }
    store.set(bytes, used);
    starts.push(used >>> 2);
    lengths.push(bytes.length);
    timestamps.push(timestampNs);
    used += (bytes.length + 3) & ~3;
    if (bytes.length < originalLength) cutOff++;
    if (lengths.length % PACKETS_A_TURN === 0) await new Promise(setImmediate);
    if (signal.aborted) throw new VirtioError(ErrorCode.ABORTED, `reading ${path} was aborted`);
  }
  if (lengths.length === 0) {
    throw new VirtioError(ErrorCode.BAD_FORMAT, `${path} holds no packets`, {
      value: path,
      advice: 'capture some first',
    });
  }
  return {
    packets: lengths.length,
    largest: lengths.reduce((largest, length) => Math.max(largest, length)),
    cutOff,
    bytes: store.buffer,
    starts: Uint32Array.from(starts),
    lengths: Uint32Array.from(lengths),
    timestampsNs: BigUint64Array.from(timestamps),
  };
}

const notSendable = (path: string, index: number, length: number): VirtioError =>
  new VirtioError(
    ErrorCode.BAD_FORMAT,
    `${path}: packet ${index + 1} has ${length} bytes, and a network device takes ${EthernetHeader.BYTES} to ${LARGEST_PACKET}`,
    { value: length, advice: 'leave it out, for instance with editcap' },
  );

const tooLarge = (path: string): VirtioError =>
  new VirtioError(
    ErrorCode.NO_RESOURCES,
    `${path} has more than 1 GiB of packets, and all of them are kept in memory`,
    {
      value: path,
      advice: 'cut it into smaller files, for instance with editcap -c',
    },
  );
