/**
 * The vhost-user protocol (QEMU, docs/interop/vhost-user.rst): header, payloads, requests of both directions.
 *
 * Every rule about a request that both ends must agree on stands in its row of `frontendRequests` or
 * `backendRequests`; the codec and both ends work from these tables. Numbers are in the machine's byte order,
 * which is little-endian wherever this runs.
 */

import { masksOf } from './bits.js';
import { Feature } from './features.js';
import { bytes, layout, le16, le32, le64, u8 } from './layout.js';

/** What every message begins with; `size` is the payload's. */
export const vhostUserHeader = layout('vhost_user_header', 12, { request: le32, flags: le32, size: le32 });

/** Bits 0 and 1 of `flags` hold the version of the protocol. */
export const HEADER_VERSION_MASK = 0x3;
export const HEADER_VERSION = 0x1;
/** Bits of `flags` by number, beside the version; the others are reserved. */
export const HeaderFlagBit = { REPLY: 2, NEED_REPLY: 3 } as const;
export const HeaderFlag = masksOf(HeaderFlagBit);

/** Protocol features by bit number. Bits from 20 on mean different things to different peers and are never negotiated. */
export const ProtocolFeature = {
  MQ: 0,
  LOG_SHMFD: 1,
  RARP: 2,
  REPLY_ACK: 3,
  MTU: 4,
  BACKEND_REQ: 5,
  CROSS_ENDIAN: 6,
  CRYPTO_SESSION: 7,
  PAGEFAULT: 8,
  CONFIG: 9,
  BACKEND_SEND_FD: 10,
  HOST_NOTIFIER: 11,
  INFLIGHT_SHMFD: 12,
  RESET_DEVICE: 13,
  INBAND_NOTIFICATIONS: 14,
  CONFIGURE_MEM_SLOTS: 15,
  STATUS: 16,
  XEN_MMAP: 17,
  SHARED_OBJECT: 18,
  DEVICE_STATE: 19,
} as const;
export type ProtocolFeature = (typeof ProtocolFeature)[keyof typeof ProtocolFeature];

// Payloads

const u64 = layout('u64', 8, { u64: le64 });
const vringState = layout('vhost_vring_state', 8, { index: le32, num: le32 });
const vringAddr = layout('vhost_vring_addr', 40, {
  index: le32,
  flags: le32,
  descriptor: le64,
  used: le64,
  available: le64,
  log: le64,
});
const memoryRegion = layout('vhost_memory_region', 32, {
  guest_address: le64,
  size: le64,
  user_address: le64,
  mmap_offset: le64,
});
const memoryTable = layout('vhost_memory', 8, { num_regions: le32, padding: le32 });
const singleRegion = layout('vhost_single_memory_region', 40, {
  padding: le64,
  guest_address: le64,
  size: le64,
  user_address: le64,
  mmap_offset: le64,
});
const log = layout('vhost_user_log', 16, { log_size: le64, log_offset: le64 });
const iotlb = layout('vhost_iotlb_msg', 32, {
  iova: le64,
  size: le64,
  user_address: le64,
  permissions: u8,
  type: u8,
  padding: bytes(6),
});
const config = layout('vhost_user_config', 12, { offset: le32, size: le32, flags: le32 });
const vringArea = layout('vhost_user_vring_area', 24, { u64: le64, size: le64, offset: le64 });
const inflight = layout('vhost_user_inflight', 24, {
  mmap_size: le64,
  mmap_offset: le64,
  num_queues: le16,
  queue_size: le16,
  padding: bytes(4),
});
const deviceState = layout('vhost_user_transfer_device_state', 8, { direction: le32, phase: le32 });
const shmemConfig = layout('vhost_user_shmem_config', 8, { num_regions: le32, padding: le32 });
const mmapRange = layout('vhost_user_mmap', 40, {
  shmid: u8,
  padding: bytes(7),
  fd_offset: le64,
  shm_offset: le64,
  len: le64,
  flags: le64,
});

/** Where the vring index is in the u64 of KICK, CALL and ERR. */
export const VRING_INDEX_MASK = 0xffn;
/** Set in that u64 when no descriptor comes with it: poll instead. */
export const VRING_NO_FD = 1n << 8n;
/** Bit of `flags` in SET_VRING_ADDR: log the writes to the used ring. */
export const VringFlagBit = { LOG: 0 } as const;
export const VringFlag = masksOf(VringFlagBit);
export const IotlbType = { MISS: 1, UPDATE: 2, INVALIDATE: 3, ACCESS_FAIL: 4 } as const;
export const IotlbPermission = { NONE: 0, READ: 1, WRITE: 2, READ_WRITE: 3 } as const;
export const ConfigFlag = { WRITABLE: 0, MIGRATION: 1 } as const;
/** Bytes of guest memory that one bit of the dirty log stands for. */
export const LOG_PAGE_BYTES = 4096;
/** In the u64 that answers SET_DEVICE_STATE_FD: bits 0 to 7 are an error, this one says that no descriptor came. */
export const DEVICE_STATE_NO_FD = 1n << 8n;

/** A layout of whatever fields. */
export interface Structure {
  readonly name: string;
  readonly bytes: number;
  read(view: DataView, offset?: number): object;
  write(view: DataView, values: object, offset?: number): void;
}

/** The shape of a payload, as data. */
export type Payload =
  | { readonly kind: 'none' }
  /** One structure; `shortest` is less than its size where peers leave padding at the end away. */
  | { readonly kind: 'fixed'; readonly layout: Structure; readonly shortest: number }
  /** A head whose field `count` says how many items follow. */
  | { readonly kind: 'array'; readonly head: Structure; readonly count: string; readonly item: Structure }
  /** A head whose field `size` says how many bytes follow. */
  | { readonly kind: 'bytes'; readonly head: Structure; readonly size: string }
  /** Bytes that are not looked into. */
  | { readonly kind: 'opaque'; readonly shortest: number; readonly longest: number };

const none = { kind: 'none' } as const;
const fixed = <L extends Structure>(structure: L, shortest = structure.bytes) =>
  ({ kind: 'fixed', layout: structure, shortest }) as const;
const opaque = (shortest: number, longest: number) => ({ kind: 'opaque', shortest, longest }) as const;

/** The payloads by name. */
export const payloads = {
  none,
  u64: fixed(u64),
  vringState: fixed(vringState),
  vringAddr: fixed(vringAddr),
  memoryTable: { kind: 'array', head: memoryTable, count: 'num_regions', item: memoryRegion },
  singleRegion: fixed(singleRegion),
  log: fixed(log),
  iotlb: fixed(iotlb),
  config: { kind: 'bytes', head: config, size: 'size' },
  vringArea: fixed(vringArea),
  inflight: fixed(inflight, 20),
  deviceState: fixed(deviceState),
  shmemConfig: { kind: 'array', head: shmemConfig, count: 'num_regions', item: u64 },
  mmapRange: fixed(mmapRange),
  uuid: opaque(16, 16),
  cryptoSession: opaque(0, 4096),
} as const satisfies Record<string, Payload>;

// Requests

/** How many descriptors come with a message. */
export type FdArity =
  | 'none'
  | 'one'
  | 'none-or-one'
  /** One for each item of the payload. */
  | 'each-item'
  /** One, or none where the payload's u64 has `VRING_NO_FD`. */
  | 'unless-bit-8';

/** One row of a request table. */
export interface RequestRow<P extends Payload = Payload, R extends Payload | undefined = Payload | undefined> {
  readonly id: number;
  readonly payload: P;
  readonly fds: FdArity;
  /** Protocol features that must have been negotiated. */
  readonly needs: readonly ProtocolFeature[];
  /** Virtio feature bit that must have been offered (30) or accepted (all others). */
  readonly needsFeature: Feature | undefined;
  /** The request's own reply; without one it is acknowledged with a u64 where NEED_REPLY asks for it. */
  readonly reply: R;
  readonly replyFds: FdArity;
  /** How the own reply says no: a u64 that is not 0, or no payload. Undefined where it cannot. */
  readonly refusal: 'u64' | 'empty' | undefined;
}

interface RequestRest<R> {
  readonly fds?: FdArity;
  readonly needs?: readonly ProtocolFeature[];
  readonly needsFeature?: Feature;
  readonly reply?: R;
  readonly replyFds?: FdArity;
  readonly refusal?: 'u64' | 'empty';
}

function request<const P extends Payload, const R extends Payload | undefined = undefined>(
  id: number,
  payload: P,
  rest: RequestRest<R> = {},
): RequestRow<P, R> {
  return {
    id,
    payload,
    fds: rest.fds ?? 'none',
    needs: rest.needs ?? [],
    needsFeature: rest.needsFeature,
    reply: rest.reply as R,
    replyFds: rest.replyFds ?? 'none',
    refusal: rest.refusal,
  };
}

const { MQ, LOG_SHMFD, RARP, MTU, BACKEND_REQ, CROSS_ENDIAN, CRYPTO_SESSION, PAGEFAULT, CONFIG } = ProtocolFeature;
const { BACKEND_SEND_FD, HOST_NOTIFIER, INFLIGHT_SHMFD, RESET_DEVICE, INBAND_NOTIFICATIONS } = ProtocolFeature;
const { CONFIGURE_MEM_SLOTS, STATUS, SHARED_OBJECT, DEVICE_STATE } = ProtocolFeature;
const p = payloads;
const bit30 = { needsFeature: Feature.PROTOCOL_FEATURES } as const;

/** What a front-end sends, by name. */
export const frontendRequests = {
  GET_FEATURES: request(1, p.none, { reply: p.u64 }),
  SET_FEATURES: request(2, p.u64),
  SET_OWNER: request(3, p.none),
  /** Deprecated: ignored, or taken to disable the rings. */
  RESET_OWNER: request(4, p.none),
  SET_MEM_TABLE: request(5, p.memoryTable, { fds: 'each-item' }),
  SET_LOG_BASE: request(6, p.log, { fds: 'one', needs: [LOG_SHMFD], reply: p.u64 }),
  SET_LOG_FD: request(7, p.none, { fds: 'one' }),
  SET_VRING_NUM: request(8, p.vringState),
  /** Addresses are the front-end's own, or IOVAs where ACCESS_PLATFORM was accepted. */
  SET_VRING_ADDR: request(9, p.vringAddr),
  SET_VRING_BASE: request(10, p.vringState),
  /** Stops the ring. */
  GET_VRING_BASE: request(11, p.vringState, { reply: p.vringState }),
  SET_VRING_KICK: request(12, p.u64, { fds: 'unless-bit-8' }),
  SET_VRING_CALL: request(13, p.u64, { fds: 'unless-bit-8' }),
  SET_VRING_ERR: request(14, p.u64, { fds: 'unless-bit-8' }),
  GET_PROTOCOL_FEATURES: request(15, p.none, { ...bit30, reply: p.u64 }),
  SET_PROTOCOL_FEATURES: request(16, p.u64, bit30),
  GET_QUEUE_NUM: request(17, p.none, { needs: [MQ], reply: p.u64 }),
  SET_VRING_ENABLE: request(18, p.vringState, bit30),
  /** The low 6 bytes are the guest's MAC address. */
  SEND_RARP: request(19, p.u64, { needs: [RARP] }),
  NET_SET_MTU: request(20, p.u64, { needs: [MTU] }),
  SET_BACKEND_REQ_FD: request(21, p.none, { fds: 'one', needs: [BACKEND_REQ] }),
  IOTLB_MSG: request(22, p.iotlb, { needsFeature: Feature.ACCESS_PLATFORM, reply: p.u64, refusal: 'u64' }),
  SET_VRING_ENDIAN: request(23, p.vringState, { needs: [CROSS_ENDIAN] }),
  GET_CONFIG: request(24, p.config, { needs: [CONFIG], reply: p.config, refusal: 'empty' }),
  SET_CONFIG: request(25, p.config, { needs: [CONFIG] }),
  CREATE_CRYPTO_SESSION: request(26, p.cryptoSession, { needs: [CRYPTO_SESSION], reply: p.cryptoSession }),
  CLOSE_CRYPTO_SESSION: request(27, p.u64, { needs: [CRYPTO_SESSION] }),
  POSTCOPY_ADVISE: request(28, p.none, { needs: [PAGEFAULT], reply: p.none, replyFds: 'one' }),
  POSTCOPY_LISTEN: request(29, p.none, { needs: [PAGEFAULT] }),
  POSTCOPY_END: request(30, p.none, { needs: [PAGEFAULT], reply: p.u64, refusal: 'u64' }),
  GET_INFLIGHT_FD: request(31, p.inflight, { needs: [INFLIGHT_SHMFD], reply: p.inflight, replyFds: 'none-or-one' }),
  SET_INFLIGHT_FD: request(32, p.inflight, { fds: 'one', needs: [INFLIGHT_SHMFD] }),
  GPU_SET_SOCKET: request(33, p.none, { fds: 'one' }),
  RESET_DEVICE: request(34, p.none, { needs: [RESET_DEVICE] }),
  VRING_KICK: request(35, p.vringState, { needs: [INBAND_NOTIFICATIONS] }),
  GET_MAX_MEM_SLOTS: request(36, p.none, { needs: [CONFIGURE_MEM_SLOTS], reply: p.u64 }),
  ADD_MEM_REG: request(37, p.singleRegion, { fds: 'one', needs: [CONFIGURE_MEM_SLOTS] }),
  /** A descriptor that comes with it is closed unused. */
  REM_MEM_REG: request(38, p.singleRegion, { fds: 'none-or-one', needs: [CONFIGURE_MEM_SLOTS] }),
  SET_STATUS: request(39, p.u64, { needs: [STATUS] }),
  GET_STATUS: request(40, p.none, { needs: [STATUS], reply: p.u64 }),
  GET_SHARED_OBJECT: request(41, p.uuid, { needs: [SHARED_OBJECT], reply: p.none, replyFds: 'none-or-one' }),
  SET_DEVICE_STATE_FD: request(42, p.deviceState, {
    fds: 'one',
    needs: [DEVICE_STATE],
    reply: p.u64,
    replyFds: 'unless-bit-8',
    refusal: 'u64',
  }),
  CHECK_DEVICE_STATE: request(43, p.none, { needs: [DEVICE_STATE], reply: p.u64, refusal: 'u64' }),
  /** Its protocol feature has no settled bit. */
  GET_SHMEM_CONFIG: request(44, p.none, { reply: p.shmemConfig }),
} as const satisfies Record<string, RequestRow>;
export type FrontendRequestName = keyof typeof frontendRequests;

/** What a back-end sends, over the socket of SET_BACKEND_REQ_FD. */
export const backendRequests = {
  IOTLB_MSG: request(1, p.iotlb, { needsFeature: Feature.ACCESS_PLATFORM }),
  CONFIG_CHANGE_MSG: request(2, p.none, { needs: [CONFIG] }),
  VRING_HOST_NOTIFIER_MSG: request(3, p.vringArea, { fds: 'unless-bit-8', needs: [HOST_NOTIFIER, BACKEND_SEND_FD] }),
  VRING_CALL: request(4, p.vringState, { needs: [INBAND_NOTIFICATIONS] }),
  VRING_ERR: request(5, p.vringState, { needs: [INBAND_NOTIFICATIONS] }),
  SHARED_OBJECT_ADD: request(6, p.uuid, { needs: [SHARED_OBJECT] }),
  SHARED_OBJECT_REMOVE: request(7, p.uuid, { needs: [SHARED_OBJECT] }),
  SHARED_OBJECT_LOOKUP: request(8, p.uuid, { needs: [SHARED_OBJECT], reply: p.u64, replyFds: 'none-or-one' }),
  SHMEM_MAP: request(9, p.mmapRange, { fds: 'one' }),
  SHMEM_UNMAP: request(10, p.mmapRange),
} as const satisfies Record<string, RequestRow>;
export type BackendRequestName = keyof typeof backendRequests;

const frontendNames: ReadonlyMap<number, FrontendRequestName> = new Map(
  Object.entries(frontendRequests).map(([name, row]) => [row.id, name as FrontendRequestName]),
);

/** The name of a front-end request by its number, or undefined where there is none. */
export const frontendRequestName = (id: number): FrontendRequestName | undefined => frontendNames.get(id);

// Regions that track what is in flight (vhost-user "Inflight I/O tracking")

/** `version` of a region that is in use; 0 says that it is not initialised. */
export const INFLIGHT_VERSION = 1;
/** What stands before the entries of a queue's region, split ring; as many entries as `desc_num` follow. */
export const inflightSplitHead = layout('QueueRegionSplit', 16, {
  features: le64,
  version: le16,
  desc_num: le16,
  last_batch_head: le16,
  used_idx: le16,
});
export const inflightSplitDesc = layout('DescStateSplit', 16, {
  inflight: u8,
  padding: bytes(5),
  next: le16,
  counter: le64,
});
/** The same for a packed ring; 7 bytes of padding are the document's, 1 is the compiler's. */
export const inflightPackedHead = layout('QueueRegionPacked', 32, {
  features: le64,
  version: le16,
  desc_num: le16,
  free_head: le16,
  old_free_head: le16,
  used_idx: le16,
  old_used_idx: le16,
  used_wrap_counter: u8,
  old_used_wrap_counter: u8,
  padding: bytes(10),
});
export const inflightPackedDesc = layout('DescStatePacked', 32, {
  inflight: u8,
  padding: bytes(1),
  next: le16,
  last: le16,
  num: le16,
  counter: le64,
  id: le16,
  flags: le16,
  len: le32,
  addr: le64,
});
