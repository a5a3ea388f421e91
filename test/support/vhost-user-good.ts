/** A good message of every request that a back-end for networks takes: abuse begins with one of these and spoils it. */

import {
  ACCESS_PLATFORM,
  BACKEND_REQ,
  BIT_30,
  CONFIG,
  type FakeFrontend,
  GUEST,
  IN_BAND,
  INFLIGHT,
  LOG_SHMFD,
  MEM_SLOTS,
  PROTOCOL_MQ,
  REPLY_ACK,
  RESET,
  STATUS,
  USER,
  VERSION_1,
} from './vhost-user-frontend.js';
import { Id, memoryTable, regionBytes, u32s, u64s, vringAddr } from './vhost-user-raw.js';

/** Protocol feature bits that only tests of every request need. */
const RARP = 1n << 2n;
export const MTU = 1n << 4n;

/** Every protocol feature that the requests below need. */
export const EVERYTHING =
  PROTOCOL_MQ |
  LOG_SHMFD |
  RARP |
  REPLY_ACK |
  MTU |
  BACKEND_REQ |
  CONFIG |
  INFLIGHT |
  RESET |
  IN_BAND |
  MEM_SLOTS |
  STATUS;

/** How a request says no: with an acknowledgement, by closing the connection, with its own u64, or with no payload. */
export type Refusal = 'ack' | 'close' | 'u64' | 'empty';

export interface GoodRequest {
  readonly request: number;
  readonly payload: Buffer;
  /** Descriptors that come with it. */
  readonly fds: number;
  readonly refusal: Refusal;
  /** Protocol features that it needs. */
  readonly needs: bigint;
}

const slot = Buffer.concat([u64s(0n), regionBytes({ guest: GUEST, bytes: 4096n, user: USER })]);
const iotlb = Buffer.concat([u64s(0n, 4096n, USER), Buffer.from([3, 2, 0, 0, 0, 0, 0, 0])]);

/** An inflight region's description. */
export function inflight(size: bigint, offset: bigint, queues: number, entries: number): Buffer {
  const numbers = Buffer.alloc(8);
  numbers.writeUInt16LE(queues, 0);
  numbers.writeUInt16LE(entries, 2);
  return Buffer.concat([u64s(size, offset), numbers]);
}

const good = (
  request: number,
  payload: Buffer = Buffer.alloc(0),
  { fds = 0, refusal = 'ack', needs = 0n }: Partial<GoodRequest> = {},
): GoodRequest => ({ request, payload, fds, refusal, needs });

export const goodRequests: readonly GoodRequest[] = [
  good(Id.GET_FEATURES, undefined, { refusal: 'close' }),
  good(Id.SET_FEATURES, u64s(VERSION_1 | BIT_30)),
  good(Id.SET_OWNER),
  good(Id.RESET_OWNER),
  good(Id.SET_MEM_TABLE, memoryTable([{ guest: GUEST, bytes: 4096n, user: USER }]), { fds: 1 }),
  good(Id.SET_LOG_BASE, u64s(4096n, 0n), { fds: 1, refusal: 'close', needs: LOG_SHMFD }),
  good(Id.SET_LOG_FD, undefined, { fds: 1 }),
  good(Id.SET_VRING_NUM, u32s(0, 256)),
  good(Id.SET_VRING_ADDR, vringAddr(0, USER, USER + 0x4000n, USER + 0x8000n)),
  good(Id.SET_VRING_BASE, u32s(0, 0)),
  good(Id.GET_VRING_BASE, u32s(0, 0), { refusal: 'close' }),
  good(Id.SET_VRING_KICK, u64s(0n), { fds: 1 }),
  good(Id.SET_VRING_CALL, u64s(0n), { fds: 1 }),
  good(Id.SET_VRING_ERR, u64s(0n), { fds: 1 }),
  good(Id.GET_PROTOCOL_FEATURES, undefined, { refusal: 'close' }),
  good(Id.SET_PROTOCOL_FEATURES, u64s(EVERYTHING)),
  good(Id.GET_QUEUE_NUM, undefined, { refusal: 'close', needs: PROTOCOL_MQ }),
  good(Id.SET_VRING_ENABLE, u32s(0, 1)),
  good(Id.SEND_RARP, u64s(0x0605_0403_0201n), { needs: RARP }),
  good(Id.NET_SET_MTU, u64s(1500n), { needs: MTU }),
  good(Id.SET_BACKEND_REQ_FD, undefined, { fds: 1, needs: BACKEND_REQ }),
  good(Id.IOTLB_MSG, iotlb, { refusal: 'u64' }),
  good(Id.GET_CONFIG, Buffer.concat([u32s(0, 12, 0), Buffer.alloc(12)]), { refusal: 'empty', needs: CONFIG }),
  good(Id.SET_CONFIG, Buffer.concat([u32s(0, 6, 0), Buffer.alloc(6)]), { needs: CONFIG }),
  good(Id.GET_INFLIGHT_FD, inflight(0n, 0n, 2, 64), { refusal: 'close', needs: INFLIGHT }),
  good(Id.SET_INFLIGHT_FD, inflight(65536n, 0n, 2, 64), { fds: 1, needs: INFLIGHT }),
  good(Id.RESET_DEVICE, undefined, { needs: RESET }),
  good(Id.VRING_KICK, u32s(0, 0), { needs: IN_BAND }),
  good(Id.GET_MAX_MEM_SLOTS, undefined, { refusal: 'close', needs: MEM_SLOTS }),
  good(Id.ADD_MEM_REG, slot, { fds: 1, needs: MEM_SLOTS }),
  // A descriptor with this one is closed unused: some front-ends send it.
  good(Id.REM_MEM_REG, slot, { fds: 1, needs: MEM_SLOTS }),
  good(Id.SET_STATUS, u64s(1n), { needs: STATUS }),
  good(Id.GET_STATUS, undefined, { refusal: 'close', needs: STATUS }),
];

/** A front-end that may send every one of them; nothing runs, and there is no memory. */
export async function mayAll(frontend: FakeFrontend): Promise<void> {
  await frontend.open(EVERYTHING);
  await frontend.do(Id.SET_FEATURES, u64s(VERSION_1 | BIT_30 | ACCESS_PLATFORM));
}
