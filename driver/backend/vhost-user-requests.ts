/**
 * What a back-end does for each request, by name.
 *
 * A handler gets values that fit the request's row in driver/spec/vhost-user.ts and the descriptors that the row asks
 * for; requests without a handler are refused. It returns what the request's own reply carries, and throws to refuse.
 */

import { ErrorCode, VirtioError } from '../errors.js';
import { caps } from '../spec/caps.js';
import { FeatureSet } from '../spec/features.js';
import { MAC_BYTES, MTU_MAX, MTU_MIN } from '../spec/net-config.js';
import { type FrontendRequestName, VRING_INDEX_MASK, VRING_NO_FD, VringFlag } from '../spec/vhost-user.js';
import type { ReplyValues, RequestValues } from '../wire/codec.js';
import type { OwnedFd } from '../wire/owned-fd.js';
import type { DeviceSession } from './vhost-user-device-session.js';
import { createInflight } from './vhost-user-inflight.js';
import { checkRegion, type FrontendRegion, type RegionFields } from './vhost-user-memory.js';
import type { RingFd } from './vhost-user-ring.js';
import { SharedFile } from './vhost-user-shared-file.js';

/** The descriptors that come with a request and go with its answer. */
export interface MessageFds {
  /** Hands over a descriptor of the request; what a handler does not take is closed after it. */
  takeFd(index: number): OwnedFd | undefined;
  /** Sends a descriptor along with the request's own reply, and closes it then. */
  attach(fd: OwnedFd): void;
}

/** Serves one request. */
export type Handler<N extends FrontendRequestName> = (
  session: DeviceSession,
  values: RequestValues<N>,
  fds: MessageFds,
) => ReplyValues<N> | Promise<ReplyValues<N>>;

export const handlers: { readonly [N in FrontendRequestName]?: Handler<N> } = {
  GET_FEATURES: (session) => ({ u64: session.offered.toU64() }),
  SET_FEATURES: (session, { u64 }) => session.setFeatures(FeatureSet.fromU64(u64)).then(nothing),
  SET_OWNER: nothing,
  SEND_RARP: async (session, { u64 }) => {
    await session.device.sendRarp(macOf(u64));
    return undefined;
  },
  SET_BACKEND_REQ_FD: (session, _values, fds) => taking(fds, (fd) => session.setChannel(fd)),
  RESET_DEVICE: async (session) => {
    await session.reset();
    return undefined;
  },
  // "It is recommended that back-ends either ignore this message, or use it to disable all rings."
  RESET_OWNER: nothing,
  GET_PROTOCOL_FEATURES: (session) => ({ u64: session.protocolOffered }),
  SET_PROTOCOL_FEATURES: (session, { u64 }) => {
    session.setProtocolFeatures(u64);
    return undefined;
  },
  GET_QUEUE_NUM: (session) => ({ u64: BigInt(session.queuePairs) }),

  SET_MEM_TABLE: async (session, regions, fds) => {
    if (regions.length === 0 || regions.length > caps.tableRegions) {
      throw refusal(`${regions.length} memory regions are not 1 to ${caps.tableRegions}`, regions.length);
    }
    await setMemory(session, [], regions, fds);
    return undefined;
  },
  GET_MAX_MEM_SLOTS: () => ({ u64: BigInt(caps.memorySlots) }),
  ADD_MEM_REG: async (session, region, fds) => {
    const same = session.memory.find(region);
    if (same === undefined) await setMemory(session, session.memory.regions, [region], fds);
    else session.repeatRegion(same);
    return undefined;
  },
  REM_MEM_REG: async (session, region) => {
    const gone = session.memory.find(region);
    if (gone === undefined) throw refusal('there is no such memory region', region.guest_address);
    await session.removeRegion(gone);
    return undefined;
  },

  IOTLB_MSG: async (session, message) => {
    await session.iotlb(message);
    return { u64: 0n };
  },
  SET_LOG_BASE: async (session, { log_size, log_offset }, fds) => {
    await taking(fds, async (fd) => {
      await session.setLog(SharedFile.of('a dirty log', 'Migration', fd, log_offset, log_size));
    });
    return { u64: 0n };
  },
  // Meant to be told of pages that were written; no front-end listens there, which is why it is closed again.
  SET_LOG_FD: nothing,
  GET_INFLIGHT_FD: (session, wanted, fds) => {
    const { fields, fd } = createInflight(wanted, session.inflightLimits);
    fds.attach(fd);
    return fields;
  },
  SET_INFLIGHT_FD: (session, fields, fds) => taking(fds, (fd) => session.setInflight(fields, fd)),

  SET_VRING_NUM: async (session, { index, num }) => {
    await session.rings.setSize(session.rings.ring(index), num);
    return undefined;
  },
  SET_VRING_BASE: (session, { index, num }) => {
    session.rings.setBase(session.rings.ring(index), num);
    return undefined;
  },
  SET_VRING_ADDR: async (session, { index, flags, descriptor, available, used, log }) => {
    const unknown = flags & ~VringFlag.LOG;
    if (unknown !== 0) throw refusal(`ring addresses with flags 0x${(unknown >>> 0).toString(16)}`, flags);
    const usedLog = (flags & VringFlag.LOG) === 0 ? undefined : log;
    await session.rings.setAddresses(session.rings.ring(index), { descriptor, available, used, usedLog });
    return undefined;
  },
  GET_VRING_BASE: async (session, { index }) => ({ index, num: await session.stopRing(index) }),
  VRING_KICK: async ({ rings }, { index }) => {
    await rings.kick(rings.ring(index));
    return undefined;
  },
  SET_VRING_KICK: (session, { u64 }, fds) => setFd(session, 'kick', u64, fds),
  SET_VRING_CALL: (session, { u64 }, fds) => setFd(session, 'call', u64, fds),
  SET_VRING_ERR: (session, { u64 }, fds) => setFd(session, 'err', u64, fds),
  SET_VRING_ENABLE: async (session, { index, num }) => {
    const ring = session.rings.ring(index);
    if (num > 1) throw refusal(`ring ${index} cannot be enabled with ${num}, only with 0 or 1`, num);
    await session.rings.enable(ring, num === 1);
    return undefined;
  },

  SET_STATUS: async (session, { u64 }) => {
    if (u64 > 0xffn) throw refusal(`a status of 0x${u64.toString(16)} does not fit into 8 bits`, u64);
    await session.setStatus(Number(u64));
    return undefined;
  },
  GET_STATUS: (session) => ({ u64: BigInt(session.status) }),

  NET_SET_MTU: async (session, { u64 }) => {
    if (u64 < BigInt(MTU_MIN) || u64 > BigInt(MTU_MAX)) {
      throw refusal(`an MTU of ${u64} is not ${MTU_MIN} to ${MTU_MAX}`, u64);
    }
    await session.setMtu(Number(u64));
    return undefined;
  },
  GET_CONFIG: (session, { offset, flags, bytes }) => {
    const { config } = session.device;
    if (bytes.length === 0 || offset + bytes.length > config.length) {
      throw refusal(`${bytes.length} bytes at ${offset} are outside the configuration`, offset);
    }
    return { offset, flags, bytes: config.slice(offset, offset + bytes.length) };
  },
  // Every field of a network device's configuration is read-only.
  SET_CONFIG: (_session, { offset }) => {
    throw refusal('the configuration of a network device cannot be written', offset);
  },
};

function nothing(): undefined {
  return undefined;
}

/** Hands the one descriptor of a message over; it is closed where that fails. */
async function taking(fds: MessageFds, body: (fd: OwnedFd) => void | Promise<void>): Promise<undefined> {
  // The table has checked that there is one.
  const fd = fds.takeFd(0)!;
  try {
    await body(fd);
  } catch (error) {
    fd.close();
    throw error;
  }
  return undefined;
}

/** The address in the low 6 bytes of a word, first byte lowest. */
const macOf = (u64: bigint): Uint8Array =>
  Uint8Array.from({ length: MAC_BYTES }, (_, index) => Number((u64 >> BigInt(8 * index)) & 0xffn));

/** Checks the regions that a message brings and puts them, after those to keep, in the place of the table. */
async function setMemory(
  session: DeviceSession,
  kept: readonly FrontendRegion[],
  fields: readonly RegionFields[],
  fds: MessageFds,
): Promise<void> {
  const added: FrontendRegion[] = [];
  try {
    for (const [index, region] of fields.entries()) {
      const fd = fds.takeFd(index);
      if (fd === undefined) throw refusal('a memory region came without its descriptor', index);
      try {
        added.push(checkRegion(region, fd));
      } catch (error) {
        fd.close();
        throw error;
      }
    }
    await session.setMemory([...kept, ...added]);
  } catch (error) {
    for (const region of added) region.owner.close();
    throw error;
  }
}

async function setFd(session: DeviceSession, which: RingFd, u64: bigint, fds: MessageFds): Promise<undefined> {
  const reserved = u64 & ~(VRING_INDEX_MASK | VRING_NO_FD);
  if (reserved !== 0n) throw refusal(`a ring index of 0x${u64.toString(16)} has reserved bits`, u64);
  const ring = session.rings.ring(Number(u64 & VRING_INDEX_MASK));
  // The table has checked that there is one, or the word that there is none.
  await session.rings.setFd(ring, which, fds.takeFd(0));
  return undefined;
}

const refusal = (message: string, value: unknown): VirtioError =>
  new VirtioError(ErrorCode.PROTOCOL_VIOLATION, message, {
    value,
    requirement: 'vhost-user "Front-end message types"',
  });
