/** A connection as it can be shown: features with reasons, memory, rings with their indices and who moves next. */

import { CopyDirection, CopyJob, CopyStatus, native } from '../../native/index.js';
import { Feature, FeatureSet, featureName } from '../spec/features.js';
import { controlqIndex } from '../spec/net-config.js';
import { virtqAvail, virtqUsed } from '../spec/ring.js';
import { describeStatus, Status } from '../spec/status.js';
import { ProtocolFeature } from '../spec/vhost-user.js';
import { highWord, lowWord } from '../units.js';
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
  const indices = readIndices(session, ring);
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
    ...(indices !== undefined && { indices }),
    kick: ring.hasFd('kick') ? 'eventfd' : 'polled',
    call: ring.hasFd('call') ? 'eventfd' : isInBand ? 'in band' : 'none',
    ...nextMove(session, ring, indices?.outstanding),
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

/**
 * The index words of a ring as they stand in memory; undefined where its addresses lead nowhere, or through an IOMMU, and
 * for packed rings, which have none.
 */
function readIndices(session: DeviceSession, ring: VhostUserRing): RingDescription['indices'] {
  const { addresses } = ring;
  const features = session.features ?? FeatureSet.EMPTY;
  const hasWords = !features.has(Feature.RING_PACKED) && !features.has(Feature.ACCESS_PLATFORM);
  if (addresses === undefined || !hasWords) return undefined;
  const available = readHalfWord(session.memory, addresses.available + BigInt(virtqAvail.fields.idx.offset));
  const used = readHalfWord(session.memory, addresses.used + BigInt(virtqUsed.fields.idx.offset));
  if (available === undefined || used === undefined) return undefined;
  return { available, used, outstanding: (available - used) & 0xffff };
}

/** Reads through the copy engine, which survives memory that is taken away. */
function readHalfWord(memory: MemoryTable, userAddress: bigint): number | undefined {
  const bytes = 2;
  const guestAddress = memory.translate(userAddress, bytes);
  const region = memory.regions.find(
    (other) =>
      guestAddress !== undefined &&
      guestAddress >= other.guestAddress &&
      guestAddress < other.guestAddress + BigInt(other.bytes),
  );
  if (guestAddress === undefined || region === undefined) return undefined;
  const engine = new native.CopyEngine(1);
  const copy = new ArrayBuffer(8);
  try {
    const fileOffset = region.fileOffset + Number(guestAddress - region.guestAddress);
    engine.addRegion({ fd: region.fd, fileOffset, guestAddress, bytes, readOnly: true });
    engine.setPool(copy);
    const { jobs } = engine;
    jobs[CopyJob.GUEST_LOW] = lowWord(guestAddress);
    jobs[CopyJob.GUEST_HIGH] = highWord(guestAddress);
    jobs[CopyJob.POOL_OFFSET] = 0;
    jobs[CopyJob.LENGTH] = bytes;
    jobs[CopyJob.DIRECTION] = CopyDirection.FROM_GUEST;
    engine.run(1);
    return jobs[CopyJob.STATUS] === CopyStatus.OK ? new DataView(copy).getUint16(0, true) : undefined;
  } catch {
    // The file was truncated, or there is no address space left: there is nothing to show.
    return undefined;
  } finally {
    engine.close();
  }
}
