/** `tso show` and `tunnel_tso show`: how long the segments are that a port is to cut in mode csum. */

import type { TestPort } from '../test-port.js';
import { hasBit, TxOffload } from './bits-of-ethdev.js';

/** How long segments of TCP are; undefined where a length is set for a device that cannot cut. */
export function segmentation({ device, tsoSegment }: TestPort): string | undefined {
  if (tsoSegment === 0) return 'TSO for non-tunneled packets is disabled\n';
  if (!hasBit(device.info().txOffloads, TxOffload.TCP_TSO)) return undefined;
  return `TSO segment size for non-tunneled packets is ${tsoSegment}\n`;
}

const tunnelOffloads = [
  TxOffload.VXLAN_TNL_TSO,
  TxOffload.GRE_TNL_TSO,
  TxOffload.IPIP_TNL_TSO,
  TxOffload.GENEVE_TNL_TSO,
  TxOffload.IP_TNL_TSO,
  TxOffload.UDP_TNL_TSO,
] as const;

/** How long segments of packets in tunnels are; undefined where a length is set for a device that cuts none of those. */
export function tunnelSegmentation({ device, tunnelTsoSegment }: TestPort): string | undefined {
  if (tunnelTsoSegment === 0) return 'TSO for tunneled packets is disabled\n';
  const capable = device.info().txOffloads;
  if (!tunnelOffloads.some((offload) => hasBit(capable, offload))) return undefined;
  return `TSO segment size for tunneled packets is ${tunnelTsoSegment}\n`;
}
