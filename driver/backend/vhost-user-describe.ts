/** A connection as it can be shown: features with reasons, memory, rings with their indices and who moves next. */

import { outstandingOnPacked } from '../ring/outstanding.js';
import { Feature, FeatureSet, featureName } from '../spec/features.js';
import { le16 } from '../spec/layout.js';
import { controlqIndex } from '../spec/net-config.js';
import { packedRingParts, virtqAvail, virtqUsed } from '../spec/ring.js';
import { describeStatus, Status } from '../spec/status.js';
import { ProtocolFeature } from '../spec/vhost-user.js';
import { copyFromGuest } from './guest-copy.js';
import type {
  ConnectionDescription,
  FeatureDescription,
  NextMove,
  RegionDescription,
  RingDescription,
} from './vhost-user-description.js';
import type { DeviceSession } from './vhost-user-device-session.js';
import { explainFeature } from './vhost-user-features.js';
import type { MemoryTable } from './vhost-user-memory.js';
import type { VhostUserRing } from './vhost-user-ring.js';

const hex = (value: bigint): string => `0x${value.toString(16)}`;

/** What the front-end has set up, as it stands now. Reads the index words of rings from the guest's memory. */
export function describeConnection(session: DeviceSession): ConnectionDescription {
  const { channel } = session;
  return {
    features: describeFeatures(session),
    protocolFeatures: describeProtocolFeatures(session),
    status: session.status === 0 ? 'none' : describeStatus(session.status),
    memory: session.memory.regions.map(describeRegion),
    mtu: session.mtu,
    log: session.log,
    backendChannel: channel === undefined ? 'none' : channel.isOpen ? 'open' : 'gone',
    rings: session.rings.all.map((ring) => describeRing(session, ring)),
  };
}

function describeFeatures({ device, offered, features }: DeviceSession): FeatureDescription[] {
  return device.offered.union(offered).bits.map((bit) => ({
    bit,
    name: featureName(bit),
    isOffered: offered.has(bit),
    isAccepted: features?.has(bit) === true,
    why: explainFeature(bit, device, features),
  }));
}

function describeProtocolFeatures(session: DeviceSession): FeatureDescription[] {
  return Object.entries(ProtocolFeature).map(([name, bit]) => {
    const isOffered = ((session.protocolOffered >> BigInt(bit)) & 1n) === 1n;
    const isAccepted = session.has(bit);
    const choice = isAccepted ? 'the front-end accepted it' : 'the front-end has not accepted it';
    return { bit, name, isOffered, isAccepted, why: isOffered ? `offered; ${choice}` : 'not offered here' };
  });
}

const describeRegion = (region: MemoryTable['regions'][number]): RegionDescription => ({
  guestAddress: hex(region.guestAddress),
  userAddress: hex(region.userAddress),
  fileOffset: region.fileOffset,
  bytes: region.bytes,
});

function describeRing(session: DeviceSession, ring: VhostUserRing): RingDescription {
  const { addresses } = ring;
  const standing = readStanding(session, ring);
  const queue = queueName(session.rings.deviceIndex(ring), session.device.maxQueuePairs);
  const isInBand = session.has(ProtocolFeature.INBAND_NOTIFICATIONS);
  return {
    ring: ring.index,
    queue,
    size: ring.size,
    state: stateOf(ring),
    isEnabled: ring.isEnabled,
    ...(addresses !== undefined && {
      addresses: {
        descriptor: hex(addresses.descriptor),
        available: hex(addresses.available),
        used: hex(addresses.used),
      },
    }),
    base: ring.base,
    ...standing,
    kick: ring.hasFd('kick') ? 'eventfd' : 'polled',
    call: ring.hasFd('call') ? 'eventfd' : isInBand ? 'in band' : 'none',
    ...nextMove(session, ring, standing.outstanding),
  };
}

function stateOf(ring: VhostUserRing): RingDescription['state'] {
  if (ring.broken !== undefined) return 'broken';
  if (ring.isRunning) return 'started';
  return ring.isWaiting ? 'waiting' : 'stopped';
}

/** Who has to act before packets move, and what is waited for. */
function nextMove(
  session: DeviceSession,
  ring: VhostUserRing,
  outstanding: number | undefined,
): { readonly next: NextMove; readonly why: string } {
  const frontend = (why: string) => ({ next: 'front-end', why }) as const;
  if (ring.broken !== undefined) return frontend(`broken: ${ring.broken}; it has to be stopped and started again`);
  if (ring.isWaiting) return frontend('a translation of its addresses was asked for and has not come');
  if (!ring.isRunning) {
    if (session.features === undefined) return frontend('features have not been chosen');
    if (session.memory.regions.length === 0) return frontend('no memory is shared');
    if (ring.missing !== undefined) return frontend(`${ring.missing} has not come`);
    const isReady = (session.status & Status.DRIVER_OK) !== 0;
    if (session.has(ProtocolFeature.STATUS) && !isReady) return frontend('the driver has not said DRIVER_OK');
    return frontend('it is not in the memory that is shared');
  }
  if (!ring.isEnabled) return frontend('the ring is not enabled');
  if (outstanding === undefined) return { next: 'nobody', why: 'the ring runs' };
  const isReceive = queueName(session.rings.deviceIndex(ring), session.device.maxQueuePairs).startsWith('receiveq');
  if (isReceive) {
    return outstanding === 0
      ? { next: 'driver', why: 'the device has no buffers for packets' }
      : { next: 'nobody', why: `${outstanding} buffers wait for packets` };
  }
  return outstanding === 0
    ? { next: 'driver', why: 'everything that was sent is done' }
    : { next: 'device', why: `${outstanding} entries wait for the device` };
}

function queueName(index: number, pairs: number): string {
  if (index === controlqIndex(pairs)) return 'controlq';
  return `${index % 2 === 0 ? 'receiveq' : 'transmitq'} ${index >>> 1}`;
}

/** How far a ring has come, as it stands in memory. */
type Standing = Pick<RingDescription, 'indices' | 'outstanding'>;

/** Nothing where its addresses lead nowhere, or through an IOMMU; a packed ring has no index words. */
function readStanding(session: DeviceSession, ring: VhostUserRing): Standing {
  const { addresses } = ring;
  const features = session.features ?? FeatureSet.EMPTY;
  if (addresses === undefined || ring.size === 0 || features.has(Feature.ACCESS_PLATFORM)) return {};
  if (features.has(Feature.RING_PACKED)) {
    const copy = copyFromGuest(session.memory, addresses.descriptor, packedRingParts(ring.size).desc.bytes);
    return copy === undefined ? {} : { outstanding: outstandingOnPacked({ desc: new Uint32Array(copy) }) };
  }
  const available = readHalfWord(session.memory, addresses.available + BigInt(virtqAvail.fields.idx.offset));
  const used = readHalfWord(session.memory, addresses.used + BigInt(virtqUsed.fields.idx.offset));
  if (available === undefined || used === undefined) return {};
  const outstanding = (available - used) & 0xffff;
  return { indices: { available, used, outstanding }, outstanding };
}

function readHalfWord(memory: MemoryTable, userAddress: bigint): number | undefined {
  const copy = copyFromGuest(memory, userAddress, le16.bytes);
  return copy === undefined ? undefined : new DataView(copy).getUint16(0, true);
}
