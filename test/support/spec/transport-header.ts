/** Where the TCP or UDP header of a frame is, and what its checksum field holds before the checksum is made. */

const ETHERTYPE_VLAN = new Set([0x8100, 0x88a8]);
const TCP = 6;
const UDP = 17;

export interface TransportHeader {
  readonly start: number;
  readonly headerBytes: number;
  /** From `start`. */
  readonly checksumOffset: number;
  /** The sum of the pseudo header, not complemented (RFC 768, RFC 8200 §8.1). */
  readonly pseudoSum: number;
}

/** Undefined for what is neither TCP nor UDP, straight behind an IPv4 or IPv6 header. */
export function transportOf(frame: Uint8Array): TransportHeader | undefined {
  const half = (at: number): number => ((frame[at] ?? 0) << 8) | (frame[at + 1] ?? 0);
  let at = 12;
  while (ETHERTYPE_VLAN.has(half(at))) at += 4;
  const type = half(at);
  const ip = at + 2;
  if (type === 0x0800) {
    const start = ip + 4 * (frame[ip]! & 15);
    return headerAt(frame, start, frame[ip + 9]!, half(ip + 2) - (start - ip), frame.subarray(ip + 12, ip + 20));
  }
  if (type === 0x86dd) return headerAt(frame, ip + 40, frame[ip + 6]!, half(ip + 4), frame.subarray(ip + 8, ip + 40));
  return undefined;
}

function headerAt(
  frame: Uint8Array,
  start: number,
  protocol: number,
  bytes: number,
  addresses: Uint8Array,
): TransportHeader | undefined {
  if (protocol !== TCP && protocol !== UDP) return undefined;
  let sum = protocol + bytes;
  for (let index = 0; index < addresses.length; index += 2) sum += (addresses[index]! << 8) | addresses[index + 1]!;
  while (sum > 0xffff) sum = (sum & 0xffff) + (sum >>> 16);
  const headerBytes = protocol === TCP ? 4 * (frame[start + 12]! >>> 4) : 8;
  return { start, headerBytes, checksumOffset: protocol === TCP ? 16 : 6, pseudoSum: sum };
}
