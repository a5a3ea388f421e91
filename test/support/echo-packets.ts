/** Requests of ARP, ICMP and IPv6 neighbour discovery, byte by byte. */

export const GUEST_MAC = [0x52, 0x54, 0x00, 0x12, 0x34, 0x56] as const;
export const HOST_MAC = [0x52, 0x54, 0x00, 0x65, 0x43, 0x21] as const;
export const PORT_MAC = [0x02, 0, 0, 0, 0, 0x02] as const;
export const GUEST_IP = [192, 0, 2, 10] as const;
export const HOST_IP = [203, 0, 113, 77] as const;
export const GUEST_IP6 = [0x20, 0x01, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x10] as const;
export const HOST_IP6 = [0x20, 0x01, 0x0d, 0xb8, 0xff, 0xff, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x77] as const;

type Bytes = readonly number[];

export const word = (value: number): Bytes => [(value >>> 8) & 0xff, value & 0xff];

/** The checksum of bytes, added up the plain way. */
export function checksum(bytes: Bytes): Bytes {
  let sum = 0;
  for (const [index, byte] of bytes.entries()) sum += index % 2 === 0 ? byte * 256 : byte;
  while (sum > 0xffff) sum = (sum % 0x10000) + Math.floor(sum / 0x10000);
  return word(0xffff - sum);
}

/** Puts the checksum of `covered` and `bytes` into the two bytes at `at`. */
export function sealed(bytes: Bytes, at: number, covered: Bytes = []): Bytes {
  return [...bytes.slice(0, at), ...checksum([...covered, ...bytes]), ...bytes.slice(at + 2)];
}

export const VLAN: Bytes = [0x81, 0, 0x60, 5];
export const QINQ: Bytes = [0x88, 0xa8, 0, 100, 0x81, 0, 0x0f, 0xfe];

export const frame = (type: number, payload: Bytes, tags: Bytes = [], to: Bytes = HOST_MAC, from: Bytes = GUEST_MAC) =>
  Uint8Array.from([...to, ...from, ...tags, ...word(type), ...payload]);

const data = (length: number): Bytes => Array.from({ length }, (_, index) => (index * 7 + 3) & 0xff);

export function arpRequest(tags: Bytes = [], operation = 1): Uint8Array {
  const body = [0, 1, 8, 0, 6, 4, ...word(operation), ...GUEST_MAC, ...GUEST_IP, 0, 0, 0, 0, 0, 0, ...HOST_IP];
  return frame(0x0806, body, tags, [0xff, 0xff, 0xff, 0xff, 0xff, 0xff]);
}

export function ipv4(protocol: number, payload: Bytes, from: Bytes = GUEST_IP, to: Bytes = HOST_IP): Bytes {
  const header = [0x45, 0, ...word(20 + payload.length), 0x12, 0x34, 0, 0, 64, protocol, 0, 0, ...from, ...to];
  return [...sealed(header, 10), ...payload];
}

/** An ICMP echo message: request 8, reply 0. */
export const icmpEcho = (type: number, bytes = 20): Bytes => sealed([type, 0, 0, 0, 0, 7, 0, 9, ...data(bytes)], 2);

export const pingRequest = (tags: Bytes = [], bytes = 20): Uint8Array =>
  frame(0x0800, ipv4(1, icmpEcho(8, bytes)), tags);
export const pingReply = (tags: Bytes = [], bytes = 20): Uint8Array =>
  frame(0x0800, ipv4(1, icmpEcho(0, bytes), HOST_IP, GUEST_IP), tags, GUEST_MAC, HOST_MAC);

export function ipv6(message: Bytes, from: Bytes = GUEST_IP6, to: Bytes = HOST_IP6, hopLimit = 255): Bytes {
  const pseudo = [...from, ...to, 0, 0, ...word(message.length), 0, 0, 0, 58];
  return [0x60, 0, 0, 0, ...word(message.length), 58, hopLimit, ...from, ...to, ...sealed(message, 2, pseudo)];
}

/** An ICMPv6 echo message, its checksum left 0: request 128, reply 129. */
export const icmpv6Echo = (type: number, bytes = 20): Bytes => [type, 0, 0, 0, 0, 7, 0, 9, ...data(bytes)];
export const ping6Request = (tags: Bytes = []): Uint8Array => frame(0x86dd, ipv6(icmpv6Echo(128)), tags);
export const ping6Reply = (tags: Bytes = []): Uint8Array =>
  frame(0x86dd, ipv6(icmpv6Echo(129), HOST_IP6, GUEST_IP6), tags, GUEST_MAC, HOST_MAC);

export function solicitation(tags: Bytes = [], from: Bytes = GUEST_IP6): Uint8Array {
  const message = [135, 0, 0, 0, 0, 0, 0, 0, ...HOST_IP6, 1, 1, ...GUEST_MAC];
  return frame(0x86dd, ipv6(message, from), tags, [0x33, 0x33, 0xff, 0, 0, 0x77]);
}
export function advertisement(tags: Bytes = []): Uint8Array {
  const message = [136, 0, 0, 0, 0x60, 0, 0, 0, ...HOST_IP6, 2, 1, ...PORT_MAC];
  return frame(0x86dd, ipv6(message, HOST_IP6, GUEST_IP6), tags, GUEST_MAC, PORT_MAC);
}
export function arpReply(tags: Bytes = []): Uint8Array {
  const body = [0, 1, 8, 0, 6, 4, 0, 2, ...PORT_MAC, ...HOST_IP, ...GUEST_MAC, ...GUEST_IP];
  return frame(0x0806, body, tags, GUEST_MAC, PORT_MAC);
}
