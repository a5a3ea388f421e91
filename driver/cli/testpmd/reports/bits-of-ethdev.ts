/** Bits of DPDK's ethdev by their names there: numbers of `RTE_ETH_RX_OFFLOAD_*`, `RTE_ETH_TX_OFFLOAD_*` and so on. */

export const RxOffload = {
  VLAN_STRIP: 0,
  IPV4_CKSUM: 1,
  UDP_CKSUM: 2,
  TCP_CKSUM: 3,
  TCP_LRO: 4,
  QINQ_STRIP: 5,
  OUTER_IPV4_CKSUM: 6,
  MACSEC_STRIP: 7,
  VLAN_FILTER: 9,
  VLAN_EXTEND: 10,
  SCATTER: 13,
  TIMESTAMP: 14,
  SECURITY: 15,
  KEEP_CRC: 16,
  SCTP_CKSUM: 17,
  OUTER_UDP_CKSUM: 18,
  RSS_HASH: 19,
  BUFFER_SPLIT: 20,
} as const;

export const TxOffload = {
  VLAN_INSERT: 0,
  IPV4_CKSUM: 1,
  UDP_CKSUM: 2,
  TCP_CKSUM: 3,
  SCTP_CKSUM: 4,
  TCP_TSO: 5,
  UDP_TSO: 6,
  OUTER_IPV4_CKSUM: 7,
  QINQ_INSERT: 8,
  VXLAN_TNL_TSO: 9,
  GRE_TNL_TSO: 10,
  IPIP_TNL_TSO: 11,
  GENEVE_TNL_TSO: 12,
  MACSEC_INSERT: 13,
  MT_LOCKFREE: 14,
  MULTI_SEGS: 15,
  MBUF_FAST_FREE: 16,
  SECURITY: 17,
  UDP_TNL_TSO: 18,
  IP_TNL_TSO: 19,
  OUTER_UDP_CKSUM: 20,
  SEND_ON_TIMESTAMP: 21,
} as const;

/** `RTE_ETH_DEV_CAPA_*`. */
export const DeviceCapability = {
  RUNTIME_RX_QUEUE_SETUP: 0,
  RUNTIME_TX_QUEUE_SETUP: 1,
  RXQ_SHARE: 2,
  FLOW_RULE_KEEP: 3,
  FLOW_SHARED_OBJECT_KEEP: 4,
} as const;

export const hasBit = (value: bigint, number: number): boolean => ((value >> BigInt(number)) & 1n) === 1n;

/** Names of the bits that are set, in the order of the bits; one without a name is `UNKNOWN`. */
export function namesOfBits(value: bigint, names: Readonly<Record<string, number>>): readonly string[] {
  const named = new Map(Object.entries(names).map(([name, number]) => [number, name]));
  const found: string[] = [];
  for (let number = 0; value >> BigInt(number) !== 0n; number++) {
    if (hasBit(value, number)) found.push(named.get(number) ?? 'UNKNOWN');
  }
  return found;
}
