/** One connection to a vhost-user back-end, from its handshake to its end. */

import { native } from '../../native/index.js';
import { ErrorCode, VirtioError } from '../errors.js';
import { caps } from '../spec/caps.js';
import { Feature, FeatureSet } from '../spec/features.js';
import { MTU_MIN, virtioNetConfig } from '../spec/net-config.js';
import type { MemoryRange } from '../spec/pci-function.js';
import type { QueueAddresses } from '../spec/transport.js';
import { ProtocolFeature } from '../spec/vhost-user.js';
import type { WaitOptions } from '../wire/bounded.js';
import { closeAll, OwnedFd } from '../wire/owned-fd.js';
import { RequestChannel } from '../wire/request-channel.js';
import { VhostUserSocket } from '../wire/vhost-user-socket.js';
import { ConfigChanges } from './vhost-user-changes.js';

const { MQ, REPLY_ACK, CONFIG, STATUS, BACKEND_REQ } = ProtocolFeature;
/** Protocol features that this front-end has a use for. */
const WANTED = [MQ, REPLY_ACK, CONFIG, STATUS];
/** Of BACKEND_REQ that the configuration changes: no use without CONFIG. */
const WANTED_WITH_CONFIG = [...WANTED, BACKEND_REQ];

/** Bytes of configuration that hold the MTU and what stands before it. */
const CONFIG_BYTES = virtioNetConfig.fields.mtu.offset + virtioNetConfig.fields.mtu.bytes;

/** Where a packed ring begins: position 0 and wrap counter 1, for the driver's end (low half) and the device's. */
const PACKED_BASE = 0x8000_8000;

/** Memory as the back-end learns of it: guest physical and front-end addresses are the same here. */
export interface SharedRegion extends MemoryRange {
  readonly address: bigint;
}

/** Eventfds of a ring. */
export interface RingFds {
  readonly kick: number;
  readonly call: number;
  readonly err: number;
}

export class VhostUserSession {
  readonly #channel: RequestChannel;
  readonly #protocol: bigint;
  readonly #changes: ConfigChanges | undefined;
  /** What the back-end offers. */
  readonly features: FeatureSet;
  /** Pairs of queues that both sides have. */
  readonly queuePairs: number;
  /** The configuration at the beginning, where the back-end has one. */
  readonly config: BackendConfig | undefined;

  private constructor(channel: RequestChannel, handshake: Handshake) {
    this.#channel = channel;
    this.#protocol = handshake.protocol;
    this.features = handshake.features;
    this.queuePairs = handshake.queuePairs;
    this.config = handshake.config;
    this.#changes = handshake.changes;
  }

  /** The back-end's MTU, where it has one. */
  get mtu(): number | undefined {
    return this.config?.mtu;
  }

  /** Whether the back-end tells of changes of its configuration. */
  get tellsOfChanges(): boolean {
    return this.#changes !== undefined;
  }
  /** Called whenever it does; at once when it has before. */
  set onConfigChange(listener: () => void) {
    if (this.#changes !== undefined) this.#changes.onChange = listener;
  }
  /** Resolves to the configuration as it is now; undefined where the back-end will not say. */
  readConfig(): Promise<BackendConfig | undefined> {
    return askConfig(this.#channel, this.features, {});
  }

  /**
   * Takes a connected socket over and agrees on the protocol with the back-end.
   *
   * @param queuePairs how many pairs are wanted
   * @throws VirtioError FEATURE_MISSING when the back-end has fewer pairs; PEER_GONE, TIMEOUT, ABORTED,
   * PROTOCOL_VIOLATION. The socket is closed then.
   */
  static async establish(socket: OwnedFd, queuePairs: number, wait: WaitOptions): Promise<VhostUserSession> {
    const channel = new RequestChannel(new VhostUserSocket(socket.release()), { timeoutMs: wait.timeoutMs });
    try {
      return new VhostUserSession(channel, await shakeHands(channel, queuePairs, wait));
    } catch (error) {
      channel.close();
      throw error;
    }
  }

  /** Called once when the connection is over, unless by `close`. */
  set onGone(listener: (reason: VirtioError) => void) {
    this.#channel.onGone = listener;
  }

  /** Why the connection is over, once it is. */
  get gone(): VirtioError | undefined {
    return this.#channel.gone;
  }

  has(feature: ProtocolFeature): boolean {
    return hasBit(this.#protocol, feature);
  }

  /** Whether rings have to be enabled: without bit 30 they are, from the start. */
  get hasRingEnable(): boolean {
    return this.features.has(Feature.PROTOCOL_FEATURES);
  }

  async setFeatures(features: FeatureSet): Promise<void> {
    const own = this.hasRingEnable ? FeatureSet.of(Feature.PROTOCOL_FEATURES) : FeatureSet.EMPTY;
    await this.#channel.call('SET_FEATURES', { u64: features.union(own).toU64() });
  }

  async setMemory(regions: readonly SharedRegion[]): Promise<void> {
    const table = regions.map((region) => ({
      guest_address: region.address,
      size: BigInt(region.bytes),
      user_address: region.address,
      mmap_offset: BigInt(region.fileOffset),
    }));
    await this.#channel.call('SET_MEM_TABLE', table, { fds: regions.map((region) => region.fd) });
  }

  /**
   * Sets a ring up and starts it.
   *
   * The call eventfd comes first, because back-ends make the ring when they see it, and the kick last, because that is
   * what starts it.
   */
  async startRing(index: number, addresses: QueueAddresses, isPacked: boolean, fds: RingFds): Promise<void> {
    const u64 = BigInt(index);
    await this.#channel.call('SET_VRING_CALL', { u64 }, { fds: [fds.call] });
    await this.#channel.call('SET_VRING_NUM', { index, num: addresses.size });
    await this.#channel.call('SET_VRING_BASE', { index, num: isPacked ? PACKED_BASE : 0 });
    await this.#channel.call('SET_VRING_ADDR', {
      index,
      flags: 0,
      descriptor: addresses.desc,
      used: addresses.device,
      available: addresses.driver,
      log: 0n,
    });
    await this.#channel.call('SET_VRING_ERR', { u64 }, { fds: [fds.err] });
    await this.#channel.call('SET_VRING_KICK', { u64 }, { fds: [fds.kick] });
  }

  async enableRing(index: number, isEnabled: boolean): Promise<void> {
    if (this.hasRingEnable) await this.#channel.call('SET_VRING_ENABLE', { index, num: isEnabled ? 1 : 0 });
  }

  /** Stops a ring: nothing touches it once this resolves. */
  async stopRing(index: number): Promise<void> {
    await this.#channel.call('GET_VRING_BASE', { index, num: 0 });
  }

  async setStatus(status: number): Promise<void> {
    await this.#channel.call('SET_STATUS', { u64: BigInt(status) });
  }

  async status(): Promise<number> {
    return Number((await this.#channel.call('GET_STATUS', undefined)).u64 & 0xffn);
  }

  /** Idempotent. */
  close(): void {
    this.#changes?.close();
    this.#channel.close();
  }
}

/** What a front-end believes of a back-end's configuration: the rest is its own. */
export interface BackendConfig {
  /** Mask of `NetStatus`. */
  readonly status: number;
  readonly mtu: number | undefined;
}

interface Handshake {
  readonly features: FeatureSet;
  readonly protocol: bigint;
  readonly queuePairs: number;
  readonly config: BackendConfig | undefined;
  readonly changes: ConfigChanges | undefined;
}

const hasBit = (bits: bigint, number: number): boolean => ((bits >> BigInt(number)) & 1n) === 1n;

async function shakeHands(channel: RequestChannel, queuePairs: number, wait: WaitOptions): Promise<Handshake> {
  // 1. The session begins.
  await channel.call('SET_OWNER', undefined, wait);

  // 2. What the back-end offers.
  const features = FeatureSet.fromU64((await channel.call('GET_FEATURES', undefined, wait)).u64);

  // 3. Protocol features, where it knows of them: what it offers and we can use.
  let protocol = 0n;
  if (features.has(Feature.PROTOCOL_FEATURES)) {
    const offered = (await channel.call('GET_PROTOCOL_FEATURES', undefined, wait)).u64;
    const wanted = hasBit(offered, CONFIG) ? WANTED_WITH_CONFIG : WANTED;
    protocol = wanted.filter((bit) => hasBit(offered, bit)).reduce((bits, bit) => bits | (1n << BigInt(bit)), 0n);
    await channel.call('SET_PROTOCOL_FEATURES', { u64: protocol }, wait);
    channel.hasReplyAck = hasBit(protocol, REPLY_ACK);
  }

  // 4. Queue pairs: "Front-end should stop when the number of requested queues is bigger than that."
  const most = hasBit(protocol, MQ) && features.has(Feature.MQ) ? await askQueuePairs(channel, wait) : 1;
  if (queuePairs > most) {
    throw new VirtioError(
      ErrorCode.FEATURE_MISSING,
      `the back-end has ${most} queue ${most === 1 ? 'pair' : 'pairs'}, ${queuePairs} were asked for`,
      { value: queuePairs, requirement: 'vhost-user "Multiple queue support"', advice: `ask for ${most} or fewer` },
    );
  }

  // 5. A channel for what the back-end tells by itself: before the reading, or a change between the two is never told.
  const hears = hasBit(protocol, BACKEND_REQ);
  const changes = hears ? await openChanges(channel, wait) : undefined;

  // 6. The configuration, where the back-end has something to say: an MTU, or that it has changed.
  const isAsked = hasBit(protocol, CONFIG) && (hears || features.has(Feature.MTU));
  try {
    const config = isAsked ? await askConfig(channel, features, wait) : undefined;
    return { features, protocol, queuePairs, config, changes };
  } catch (error) {
    changes?.close();
    throw error;
  }
}

/** Hands one end of a new socket to the back-end; the other one is read. */
async function openChanges(channel: RequestChannel, wait: WaitOptions): Promise<ConfigChanges | undefined> {
  const [ours, theirs] = native.socketPair().map((fd) => new OwnedFd(fd)) as [OwnedFd, OwnedFd];
  try {
    await channel.call('SET_BACKEND_REQ_FD', undefined, { ...wait, fds: [theirs.fd] });
    return new ConfigChanges(ours);
  } catch (error) {
    // One that will not have it tells of nothing.
    if (error instanceof VirtioError && error.code === ErrorCode.REQUEST_REFUSED) return undefined;
    throw error;
  } finally {
    closeAll([ours, theirs]);
  }
}

async function askQueuePairs(channel: RequestChannel, wait: WaitOptions): Promise<number> {
  const { u64 } = await channel.call('GET_QUEUE_NUM', undefined, wait);
  return u64 > BigInt(caps.queuePairs) ? caps.queuePairs : Number(u64);
}

async function askConfig(
  channel: RequestChannel,
  features: FeatureSet,
  wait: WaitOptions,
): Promise<BackendConfig | undefined> {
  const request = { offset: 0, flags: 0, bytes: new Uint8Array(CONFIG_BYTES) };
  try {
    const { bytes } = await channel.call('GET_CONFIG', request, wait);
    if (bytes.length !== CONFIG_BYTES) return undefined;
    const { status, mtu } = virtioNetConfig.read(paddedView(bytes));
    return { status, mtu: features.has(Feature.MTU) && mtu >= MTU_MIN ? mtu : undefined };
  } catch (error) {
    // A back-end that will not say has nothing for us.
    if (error instanceof VirtioError && error.code === ErrorCode.REQUEST_REFUSED) return undefined;
    throw error;
  }
}

function paddedView(bytes: Uint8Array): DataView {
  const padded = new Uint8Array(virtioNetConfig.bytes);
  padded.set(bytes);
  return new DataView(padded.buffer);
}
