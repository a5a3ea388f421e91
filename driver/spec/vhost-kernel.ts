/**
 * The kernel's vhost-net as its headers have it (linux/vhost.h, linux/vhost_types.h), and taps (linux/if_tun.h): requests and
 * structures. Structures are in host order, little-endian here.
 */

import { masksOf } from './bits.js';
import { bytes, layout, le16, le32, le64 } from './layout.js';

/** The kernel's back-end, and where taps are opened. */
export const VHOST_NET_PATH = '/dev/vhost-net';
export const TUN_PATH = '/dev/net/tun';

/** Which way a request's structure goes, for its number; as most architectures count (asm-generic/ioctl.h). */
const Direction = { NONE: 0, WRITE: 1, READ: 2, BOTH: 3 } as const;

/** _IO, _IOW, _IOR and _IOWR of the headers. */
const request = (direction: number, type: number, number: number, size: number): number =>
  ((direction << 30) | (size << 16) | (type << 8) | number) >>> 0;

export const vhostVringState = layout('vhost_vring_state', 8, { index: le32, num: le32 });
/** `fd` is an int: `VHOST_NO_FD` takes the one that is there away. */
export const vhostVringFile = layout('vhost_vring_file', 8, { index: le32, fd: le32 });
/** Addresses are of the process that owns the device. */
export const vhostVringAddr = layout('vhost_vring_addr', 40, {
  index: le32,
  flags: le32,
  desc_user_addr: le64,
  used_user_addr: le64,
  avail_user_addr: le64,
  log_guest_addr: le64,
});
/** What stands before the regions of SET_MEM_TABLE. */
export const vhostMemory = layout('vhost_memory', 8, { nregions: le32, padding: le32 });
export const vhostMemoryRegion = layout('vhost_memory_region', 32, {
  guest_phys_addr: le64,
  memory_size: le64,
  userspace_addr: le64,
  flags_padding: le64,
});

/** VHOST_FILE_UNBIND. */
export const VHOST_NO_FD = 0xffff_ffff;
/** Regions that the kernel takes unless its module was told otherwise (`max_mem_regions` of vhost). */
export const VHOST_REGIONS = 64;

const VHOST = 0xaf;
const FEATURES_BYTES = 8;

/** Requests for `ioctl` on /dev/vhost-net. */
export const VhostRequest = {
  GET_FEATURES: request(Direction.READ, VHOST, 0x00, FEATURES_BYTES),
  SET_FEATURES: request(Direction.WRITE, VHOST, 0x00, FEATURES_BYTES),
  SET_OWNER: request(Direction.NONE, VHOST, 0x01, 0),
  RESET_OWNER: request(Direction.NONE, VHOST, 0x02, 0),
  SET_MEM_TABLE: request(Direction.WRITE, VHOST, 0x03, vhostMemory.bytes),
  SET_VRING_NUM: request(Direction.WRITE, VHOST, 0x10, vhostVringState.bytes),
  SET_VRING_ADDR: request(Direction.WRITE, VHOST, 0x11, vhostVringAddr.bytes),
  SET_VRING_BASE: request(Direction.WRITE, VHOST, 0x12, vhostVringState.bytes),
  GET_VRING_BASE: request(Direction.BOTH, VHOST, 0x12, vhostVringState.bytes),
  SET_VRING_KICK: request(Direction.WRITE, VHOST, 0x20, vhostVringFile.bytes),
  SET_VRING_CALL: request(Direction.WRITE, VHOST, 0x21, vhostVringFile.bytes),
  SET_VRING_ERR: request(Direction.WRITE, VHOST, 0x22, vhostVringFile.bytes),
  NET_SET_BACKEND: request(Direction.WRITE, VHOST, 0x30, vhostVringFile.bytes),
} as const;

/** Rings of one open /dev/vhost-net. */
export const VhostNetRing = { RX: 0, TX: 1 } as const;

/** Bytes of a network interface's name, its closing zero included. */
export const INTERFACE_NAME_BYTES = 16;
/** `struct ifreq` with its union as flags; the rest of the union is not used here. */
export const interfaceRequest = layout('ifreq', 40, {
  ifr_name: bytes(INTERFACE_NAME_BYTES),
  ifr_flags: le16,
  rest: bytes(22),
});

/** Bits of `ifr_flags` in the requests of taps. */
export const TapFlagBit = {
  TAP: 1,
  MULTI_QUEUE: 8,
  ATTACH_QUEUE: 9,
  DETACH_QUEUE: 10,
  NO_PI: 12,
  VNET_HDR: 14,
} as const;
export const TapFlag = masksOf(TapFlagBit);

const TUN = 'T'.charCodeAt(0);
const INT_BYTES = 4;

/** Requests for `ioctl` on /dev/net/tun. Their numbers claim an int where the structure is an `ifreq`. */
export const TunRequest = {
  SET_IFF: request(Direction.WRITE, TUN, 202, INT_BYTES),
  SET_OFFLOAD: request(Direction.WRITE, TUN, 208, INT_BYTES),
  GET_IFF: request(Direction.READ, TUN, 210, INT_BYTES),
  SET_VNET_HDR_SIZE: request(Direction.WRITE, TUN, 216, INT_BYTES),
  SET_QUEUE: request(Direction.WRITE, TUN, 217, INT_BYTES),
  SET_VNET_LE: request(Direction.WRITE, TUN, 220, INT_BYTES),
  /** Since Linux 5.0. */
  SET_CARRIER: request(Direction.WRITE, TUN, 226, INT_BYTES),
} as const;

/** SIOCSIFHWADDR (linux/sockios.h), which taps take too: the address behind the kind of it, in the place of the flags. */
export const SET_HARDWARE_ADDRESS = 0x8924;
export const ARPHRD_ETHER = 1;
