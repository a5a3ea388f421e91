/** `csum show`: who computes checksums in mode csum. The commands that set it answer so, too. */

import type { TestPort } from '../test-port.js';
import { hasBit, TxOffload } from './bits-of-ethdev.js';
import { onOff } from './words.js';

const protocols = [
  { name: 'IP', warned: 'IP', offload: TxOffload.IPV4_CKSUM },
  { name: 'UDP', warned: 'UDP', offload: TxOffload.UDP_CKSUM },
  { name: 'TCP', warned: 'TCP', offload: TxOffload.TCP_CKSUM },
  { name: 'SCTP', warned: 'SCTP', offload: TxOffload.SCTP_CKSUM },
  { name: 'Outer-Ip', warned: 'outer IP', offload: TxOffload.OUTER_IPV4_CKSUM },
  { name: 'Outer-Udp', warned: 'outer UDP', offload: TxOffload.OUTER_UDP_CKSUM },
] as const;

/** Who computes each checksum. */
export function checksumOffloads({ txOffloads, parseTunnel }: TestPort): string {
  const rows = protocols.map(
    ({ name, offload }) => `${name} checksum offload is ${hasBit(txOffloads, offload) ? 'hw' : 'sw'}`,
  );
  return `${[`Parse tunnel is ${onOff(parseTunnel)}`, ...rows].join('\n')}\n`;
}

/** Complaints about offloads that are on and that the device does not have. */
export function checksumWarnings({ id, device, txOffloads }: TestPort): readonly string[] {
  const capable = device.info().txOffloads;
  return protocols
    .filter(({ offload }) => hasBit(txOffloads, offload) && !hasBit(capable, offload))
    .map(({ warned }) => `Warning: hardware ${warned} checksum enabled but not supported by port ${id}`);
}
