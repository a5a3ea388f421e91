/** What is known of a received packet, by the names of DPDK's flags. */

import { OVERSIZE_FLAGS, PacketFlag } from '../../../thread.js';

/** In DPDK's order, each with a space behind it. `RTE_MBUF_F_RX_L4_CKSUM_GOOD RTE_MBUF_F_RX_IP_CKSUM_UNKNOWN …` */
export function receiveFlagNames(flags: number): string {
  const has = (flag: number): boolean => (flags & flag) !== 0;
  const l4 = has(PacketFlag.CHECKSUM_VALID) ? 'GOOD' : has(PacketFlag.NEEDS_CHECKSUM) ? 'NONE' : 'UNKNOWN';
  const names = [
    has(PacketFlag.VLAN) && 'VLAN',
    has(PacketFlag.HASH) && 'RSS_HASH',
    `L4_CKSUM_${l4}`,
    'IP_CKSUM_UNKNOWN',
    has(PacketFlag.VLAN) && 'VLAN_STRIPPED',
    has(OVERSIZE_FLAGS) && 'LRO',
    'OUTER_L4_CKSUM_UNKNOWN',
  ];
  return names
    .filter((name) => name !== false)
    .map((name) => `RTE_MBUF_F_RX_${name} `)
    .join('');
}
