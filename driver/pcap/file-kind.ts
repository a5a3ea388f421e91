/** Guesses what a file is that is no capture, so that the error can say what was given instead. */

interface Kind {
  readonly magic: readonly number[];
  readonly name: string;
  readonly advice?: string;
}

const UNPACK = 'unpack it first';
const CONVERT = 'convert it with editcap';

const KINDS: readonly Kind[] = [
  { magic: [0x1f, 0x8b], name: 'gzip data', advice: UNPACK },
  { magic: [0x28, 0xb5, 0x2f, 0xfd], name: 'zstd data', advice: UNPACK },
  { magic: [0xfd, 0x37, 0x7a, 0x58, 0x5a], name: 'xz data', advice: UNPACK },
  { magic: [0x42, 0x5a, 0x68], name: 'bzip2 data', advice: UNPACK },
  { magic: [0x04, 0x22, 0x4d, 0x18], name: 'lz4 data', advice: UNPACK },
  { magic: [0x50, 0x4b, 0x03, 0x04], name: 'a zip archive', advice: UNPACK },
  { magic: [0x73, 0x6e, 0x6f, 0x6f, 0x70, 0x00], name: 'a snoop capture', advice: CONVERT },
  { magic: [0xa1, 0xb2, 0xcd, 0x34], name: 'a modified pcap file', advice: CONVERT },
  { magic: [0x34, 0xcd, 0xb2, 0xa1], name: 'a modified pcap file', advice: CONVERT },
  { magic: [0x7f, 0x45, 0x4c, 0x46], name: 'a program' },
  { magic: [0x89, 0x50, 0x4e, 0x47], name: 'a PNG picture' },
  { magic: [0x25, 0x50, 0x44, 0x46], name: 'a PDF document' },
];

const isPrintable = (byte: number): boolean =>
  byte === 0x09 || byte === 0x0a || byte === 0x0d || (byte >= 0x20 && byte !== 0x7f);

/** Returns what the beginning of a file looks like, and what to do about it. */
export function fileKind(head: Uint8Array): { readonly name: string; readonly advice: string } {
  const advice = 'give a pcap or pcapng file';
  if (head.length === 0) return { name: 'it is empty', advice };
  const kind = KINDS.find(({ magic }) => magic.every((byte, index) => head[index] === byte));
  if (kind !== undefined) return { name: `it looks like ${kind.name}`, advice: kind.advice ?? advice };
  if (head.every(isPrintable)) return { name: 'it looks like text', advice };
  const bytes = Buffer.from(head.subarray(0, 4)).toString('hex');
  return { name: `it begins with ${bytes}`, advice };
}
