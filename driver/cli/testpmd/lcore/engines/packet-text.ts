/** Addresses and numbers of packets as testpmd writes them. */

import type { PacketBytes } from '../../../../thread.js';

const MAC_BYTES = 6;

/** `52:54:00:12:34:56`, in capitals, from position `at` of a packet. */
export function macText(packet: PacketBytes, at: number): string {
  const parts: string[] = [];
  for (let index = 0; index < MAC_BYTES; index++)
    parts.push(
      packet
        .u8(at + index)
        .toString(16)
        .padStart(2, '0'),
    );
  return parts.join(':').toUpperCase();
}

export const ipv4Text = (address: number): string =>
  `${address >>> 24}.${(address >>> 16) & 0xff}.${(address >>> 8) & 0xff}.${address & 0xff}`;

export const hex4 = (value: number): string => value.toString(16).padStart(4, '0');
