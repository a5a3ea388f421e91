/** What a peer may ask for at most. Beyond any of these the request is refused, before anything is allocated. */

import { MAX_QUEUE_SIZE } from './ring.js';

export const caps = {
  /** Bytes of a vhost-user payload. */
  payloadBytes: 4096,
  /** Descriptors with one message (vhost-user "Communication"). More is an error. */
  messageFds: 8,
  /** Regions of one SET_MEM_TABLE (vhost-user "Memory regions description"). */
  tableRegions: 8,
  /** Regions that ADD_MEM_REG may bring together; each keeps a descriptor open. */
  memorySlots: 509,
  /** Sum of all regions of a guest, in bytes, unless the owner says otherwise. */
  memoryBytes: 1n << 40n,
  /** Entries of a ring. */
  ringSize: MAX_QUEUE_SIZE,
  /** Queue pairs that the vring index of KICK, CALL and ERR (8 bits) leaves room for. */
  queuePairs: 128,
  /** Bytes of a socket's path: `sun_path` without its closing zero. */
  socketPathBytes: 107,
  /** Milliseconds from the first byte of a message to its last, and for a reply to be taken. */
  messageMs: 5000,
  /** Connections of one server. */
  connections: 1024,
  /** Translations that are asked for and have not come. */
  iotlbMisses: 2048,
  /** Requests to the front-end that its kernel has not taken, or that it has not answered. */
  backendRequests: 512,
  /** Milliseconds between two events of the same class from one connection. */
  eventIntervalMs: 1000,
} as const;
