/** Bounds of an Ethernet packet on a virtio-net device. */

/** Bytes of an Ethernet header without VLAN tag: no packet is shorter. */
export const ETHERNET_HEADER_BYTES = 14;
/** Most bytes of a packet, virtio header not counted: 64 KiB of IP, Ethernet header, two VLAN tags and slack. */
export const MAX_PACKET_BYTES = 65_562;
