/** The packet that tells a network where a guest is now: what hypervisors send after a migration. */

import { MAC_BYTES } from '../spec/net-config.js';

/** Bytes of the shortest Ethernet frame, check sequence not counted. */
const FRAME_BYTES = 60;
const ETHERTYPE_RARP = 0x8035;
const HARDWARE_ETHERNET = 1;
const PROTOCOL_IPV4 = 0x0800;
const REVERSE_REQUEST = 3;

/** A RARP request (RFC 903) from `macAddress` about itself, to everybody. */
export function rarpPacket(macAddress: Uint8Array): Uint8Array {
  const frame = new Uint8Array(FRAME_BYTES);
  const view = new DataView(frame.buffer);
  frame.fill(0xff, 0, MAC_BYTES);
  frame.set(macAddress, 6);
  view.setUint16(12, ETHERTYPE_RARP);
  view.setUint16(14, HARDWARE_ETHERNET);
  view.setUint16(16, PROTOCOL_IPV4);
  frame[18] = MAC_BYTES;
  frame[19] = 4;
  view.setUint16(20, REVERSE_REQUEST);
  frame.set(macAddress, 22);
  frame.set(macAddress, 32);
  return frame;
}
