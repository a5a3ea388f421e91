/** Errors about what a capture file contains: each names the packet, counted from 1, and the byte. */

import { ErrorCode, VirtioError } from '../errors.js';
import { nameOf } from '../spec/bits.js';
import type { FileWindow } from './file-window.js';
import { LINKTYPE_ETHERNET, LinkType, PACKET_BYTES_MAX } from './format.js';

const PCAP = 'draft-ietf-opsawg-pcap';

/** The error for something wrong at a packet: `packet 3 at byte 1234: what`. */
export function damaged(
  window: FileWindow,
  packet: number,
  offset: number,
  what: string,
  advice?: string,
): VirtioError {
  return new VirtioError(ErrorCode.BAD_FORMAT, `${window.path}: packet ${packet} at byte ${offset}: ${what}`, {
    value: { packet, offset },
    requirement: PCAP,
    advice: advice ?? 'capture it again, or cut it there',
  });
}

/** The error for a file that ends before what it announced. */
export const truncated = (
  window: FileWindow,
  packet: number,
  offset: number,
  has: number,
  wants: number,
): VirtioError => damaged(window, packet, offset, `the file ends after ${has} of its ${wants} bytes`);

/** Throws where the length of a packet is beyond what any network device carries. */
export function checkLength(window: FileWindow, packet: number, offset: number, bytes: number): void {
  if (bytes <= PACKET_BYTES_MAX) return;
  const what = `a length of ${bytes} bytes, beyond the limit of ${PACKET_BYTES_MAX}: the file is damaged`;
  throw damaged(window, packet, offset, what);
}

/** Throws where frames are not Ethernet frames: they could not be sent as they are. */
export function checkLinkType(path: string, linkType: number): void {
  if (linkType === LINKTYPE_ETHERNET) return;
  const name = nameOf(linkType, LinkType);
  throw new VirtioError(ErrorCode.BAD_FORMAT, `${path}: the link type is ${name} (${linkType}), not Ethernet`, {
    value: linkType,
    requirement: PCAP,
    advice: 'capture on an Ethernet interface, not on "any"',
  });
}
