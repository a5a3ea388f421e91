/** What csum tells of a packet with `set verbose 1`. */

import { EtherType, type PacketBytes, type PacketPool } from '../../../../thread.js';
import { type PortForwardSettings, TxOffload } from '../forward-settings.js';
import { receiveFlagNames } from '../packet-flag-names.js';
import { Asked } from './checksum-maker.js';
import type { ChecksumLayers } from './csum-layers.js';

/** What was done to a packet. */
interface ChecksumWork {
  readonly rxPort: number;
  /** `PacketFlag`s of the packet as it was received. */
  readonly found: number;
  /** `Asked`. */
  readonly asked: number;
  readonly layers: ChecksumLayers;
  readonly port: PortForwardSettings;
}

const ANY_CHECKSUM = TxOffload.IPV4_CKSUM | TxOffload.UDP_CKSUM | TxOffload.TCP_CKSUM | TxOffload.SCTP_CKSUM;
const OUTER_CHECKSUM = TxOffload.OUTER_IPV4_CKSUM | TxOffload.OUTER_UDP_CKSUM;

export function describeChecksums(pool: PacketPool, packet: PacketBytes, work: ChecksumWork): string {
  const { layers, port, found } = work;
  const { handle, length } = packet;
  const address = (pool.memory.iovas.at(pool.offset) + BigInt(handle * pool.bufferBytes)).toString(16);
  const { l2, l3, l4, protocol, type, tunnel, outerL2, outerL3, outerType } = layers;
  const lines = [
    '-----------------',
    `port=${work.rxPort}, mbuf=0x${address}, pkt_len=${length}, nb_segs=${pool.segments(handle)}:`,
    `rx: l2_len=${l2} ethertype=${type.toString(16)} l3_len=${l3} l4_proto=${protocol} l4_len=${l4} ` +
      `flags=${receiveFlagNames(found)}`,
  ];
  if (tunnel !== undefined) {
    lines.push(`rx: outer_l2_len=${outerL2} outer_ethertype=${outerType.toString(16)} outer_l3_len=${outerL3}`);
  }
  lines.push(...sentLengths(work));
  if ((work.asked & Asked.TCP_SEG) !== 0) {
    const segment = tunnel === undefined ? port.tsoSegmentBytes : port.tunnelTsoSegmentBytes;
    lines.push(`tx: m->tso_segsz=${segment}`);
  }
  lines.push(`tx: flags=${sentFlags(work)}`, '');
  return lines.join('\n');
}

function sentLengths({ layers, port }: ChecksumWork): string[] {
  const { l2, l3, l4, tunnel, outerL2, outerL3, outerType } = layers;
  const lines: string[] = [];
  const isOuterSeparate = port.tunnelTsoSegmentBytes > 0 || (port.txOffloads & OUTER_CHECKSUM) !== 0n;
  const before = tunnel === undefined || isOuterSeparate ? 0 : outerL2 + outerL3;
  if ((port.txOffloads & ANY_CHECKSUM) !== 0n || port.tsoSegmentBytes !== 0) {
    lines.push(`tx: m->l2_len=${before + l2} m->l3_len=${l3} m->l4_len=${l4}`);
  }
  if (tunnel !== undefined && ((port.txOffloads & OUTER_CHECKSUM) !== 0n || outerType === EtherType.IPV6)) {
    const [outer2, outer3] = isOuterSeparate ? [outerL2, outerL3] : [0, 0];
    lines.push(`tx: m->outer_l2_len=${outer2} m->outer_l3_len=${outer3}`);
  }
  return lines;
}

/** In the order in which DPDK lists its flags. */
function sentFlags({ asked, layers }: ChecksumWork): string {
  const has = (flag: number): boolean => (asked & flag) !== 0;
  const { type, l3, tunnel, outerType } = layers;
  const l4 = has(Asked.TCP_CKSUM) ? 'TCP_CKSUM' : has(Asked.UDP_CKSUM) ? 'UDP_CKSUM' : 'L4_NO_CKSUM';
  const isIp = l3 > 0;
  const names = [
    has(Asked.IP_CKSUM) && 'IP_CKSUM',
    l4,
    has(Asked.TCP_SEG) && 'TCP_SEG',
    isIp && type === EtherType.IPV4 && 'IPV4',
    isIp && type === EtherType.IPV6 && 'IPV6',
    has(Asked.OUTER_IP_CKSUM) && 'OUTER_IP_CKSUM',
    tunnel !== undefined && outerType === EtherType.IPV4 && 'OUTER_IPV4',
    tunnel !== undefined && outerType !== EtherType.IPV4 && 'OUTER_IPV6',
    tunnel !== undefined && `TUNNEL_${tunnel}`,
    has(Asked.OUTER_UDP_CKSUM) && 'OUTER_UDP_CKSUM',
  ];
  return names
    .filter((name) => name !== false)
    .map((name) => `RTE_MBUF_F_TX_${name} `)
    .join('');
}
