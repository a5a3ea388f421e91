/** Names of protocols as testpmd's icmpecho writes them. */

/** By protocol number, from 0 on (IANA protocol numbers, in testpmd's words). */
const ipProtocols = (
  'IP6HOPOPTS ICMP IGMP GGP IPv4 UNASSIGNED TCP ST EGP PIGP RCC_MON NVPII PUP ARGUS EMCON XNET CHAOS UDP MUX DCN_MEAS HMP ' +
  'PRM XNS_IDP TRUNK1 TRUNK2 LEAF1 LEAF2 RDP IRTP TP4 BLT NSP INP SEP 3PC IDPR XTP DDP CMTP TPXX ILTP IPv6_HDR SDRP IPv6_RTG ' +
  'IPv6_FRAG IDRP RSVP GRE MHRP BHA ESP AH INLSP SWIPE NHRP UNASSIGNED UNASSIGNED UNASSIGNED ICMPv6 IPv6NONEXT Ipv6DSTOPTS ' +
  'AHIP CFTP HELLO SATEXPAK KRYPTOLAN RVD IPPC ADFS SATMON VISA IPCV CPNX CPHB WSN PVP BRSATMON ND WBMON WBEXPAK EON VMTP ' +
  'SVMTP VINES TTP IGP DGP TCF IGRP OSPFIGP SRPC LARP MTP AX25 4IN4 MICP SCCSP ETHERIP ENCAP AES GMTP IPCOMP UNASSIGNED ' +
  'UNASSIGNED PIM'
).split(' ');
const SCTP = 132;
const RAW = 255;

export function ipProtocolName(protocol: number): string {
  if (protocol === SCTP) return 'SCTP';
  return protocol === RAW ? 'RAW' : (ipProtocols[protocol] ?? 'UNASSIGNED');
}

const arpOperations: Readonly<Record<number, string>> = {
  1: 'ARP Request',
  2: 'ARP Reply',
  3: 'Reverse ARP Request',
  4: 'Reverse ARP Reply',
  8: 'Peer Identify Request',
  9: 'Peer Identify Reply',
};

export const arpOperationName = (operation: number): string => arpOperations[operation] ?? 'Unknown ARP op';
