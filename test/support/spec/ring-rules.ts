/**
 * A recorder between the two ends of a ring, which move in turns: it looks at the shared memory after each, and names the
 * rule that was broken. What both formats have in common; they add how chains are made available and used.
 */

import { Feature, type FeatureSet, featureName } from '../../../driver/spec/features.js';
import { netHeaderBytes } from '../../../driver/spec/net-header.js';
import { type CommandedState, checkAnswer, checkCommand } from './control-rules.js';
import { checkReceivedPacket, checkSentPacket } from './header-rules.js';
import type { ReachedMemory, RecordedChain } from './recorded-chain.js';
import type { Violations } from './violations.js';

export type RingKind = 'receive' | 'transmit' | 'control';

export interface RuledRing {
  readonly ring: number;
  readonly kind: RingKind;
  readonly size: number;
  readonly desc: bigint;
  readonly avail: bigint;
  readonly used: bigint;
  /** Where both ends stand, as `RingSetup.base` counts. */
  readonly base: number;
  readonly memory: ReachedMemory;
  readonly state: CommandedState;
  /** Longest packet as the configuration says it; undefined without MTU. */
  readonly mtu: number | undefined;
  readonly violations: Violations;
}

/** Frames that a device may put into one buffer: without segmentation, and with (virtio 1.2 §5.1.6.3.1). */
const FRAME_BYTES = 1514;
const SEGMENTED_BYTES = 65_589;
const guestSegmentation = [
  ...[Feature.GUEST_TSO4, Feature.GUEST_TSO6, Feature.GUEST_UFO],
  ...[Feature.GUEST_USO4, Feature.GUEST_USO6],
];
const NUM_BUFFERS_AT = 10;

/** A chain that the device has used, and the bytes that it says it has written. */
interface UsedChain {
  readonly chain: RecordedChain;
  readonly length: number;
}

export abstract class RingRules {
  protected readonly ruled: RuledRing;
  protected readonly features: FeatureSet;
  /** Published and not used, oldest first. */
  protected readonly chains: RecordedChain[] = [];
  readonly #headerBytes: number;
  readonly #used: UsedChain[] = [];
  /** Chains seen so far. */
  published = 0;

  constructor(ruled: RuledRing) {
    this.ruled = ruled;
    this.features = ruled.state.features;
    this.#headerBytes = netHeaderBytes(this.features);
  }

  /** To be called when the driver has done something. @param kicks how often it has notified, where that is known */
  abstract afterDriver(kicks?: number): void;
  /** To be called when the device has done something. @param calls how often it has notified, where that is known */
  abstract afterDevice(calls?: number): void;
  /** In the device's place: asks for a notification of the very next chain, or for none. */
  abstract wantKicks(wanted: boolean): void;

  protected has(feature: Feature): boolean {
    return this.features.has(feature);
  }

  /** "ring 3" before each word. */
  protected insist(rule: Parameters<Violations['insist']>[0], holds: boolean, what: string): boolean {
    return this.ruled.violations.insist(rule, holds, `ring ${this.ruled.ring}: ${what}`);
  }

  /** A chain that the driver has published. */
  protected publish(chain: RecordedChain): void {
    this.chains.push(chain);
    this.published++;
    const { kind } = this.ruled;
    const firstWritable = chain.buffers.findIndex(({ isWritable }) => isWritable);
    const isOrdered = firstWritable < 0 || chain.buffers.slice(firstWritable).every(({ isWritable }) => isWritable);
    this.insist('D22', isOrdered, 'a buffer to be read behind one to be written');
    const bytes = chain.buffers.reduce((sum, { live }) => sum + live.length, 0);
    this.insist('D23', bytes < 2 ** 32, `a chain of ${bytes} bytes`);
    if (kind === 'transmit') this.#checkSent(chain);
    else if (kind === 'receive') this.#checkReceiveBuffer(chain);
    else checkCommand(chain.readable, this.ruled.state, this.ruled.violations);
  }

  /** What the device has and has not used is as it was when the driver published it. */
  protected checkExposed(): void {
    for (const chain of this.chains) {
      const isSame = !chain.hasChangedReadable && !chain.hasChangedWritable;
      this.insist('D31', isSame, `the driver changed the buffers of chain ${chain.id}, which the device has`);
      chain.accept();
    }
  }

  /** What the device may only read is as the driver wrote it. */
  protected checkUntouched(): void {
    for (const chain of [...this.chains, ...this.#used.map((each) => each.chain)]) {
      this.insist('E7', !chain.hasChangedReadable, `the device wrote into what it may read of chain ${chain.id}`);
      chain.accept();
    }
  }

  /** Takes the chain that the device says it has used out of those that are published; with IN_ORDER, all before it too. */
  protected use(id: number, length: number): number {
    const at = this.chains.findIndex((chain) => chain.id === id);
    const inOrder = this.has(Feature.IN_ORDER);
    const rule = inOrder ? 'E10' : 'E8';
    if (!this.insist(rule, at >= 0, `the device used ${id}, which is not published`)) return 0;
    const taken = inOrder ? this.chains.splice(0, at + 1) : this.chains.splice(at, 1);
    for (const chain of taken) {
      // Those without an entry of their own were used wholly (virtio 1.2 §2.7.9).
      const written = chain.id === id ? length : chain.capacity;
      this.#used.push({ chain, length: written });
      this.insist('E8', written <= chain.capacity, `${written} bytes written into ${chain.capacity}`);
      this.insist('E8', !chain.hasChangedBehind(written), `more was written than the ${written} bytes of chain ${id}`);
    }
    return taken.length;
  }

  /** Judges what the device has used in this turn: a packet's chains come together. */
  protected judgeUsed(): void {
    const used = this.#used.splice(0);
    const { kind, state, violations } = this.ruled;
    if (kind === 'receive' && used.length > 0) {
      const pair = this.ruled.ring >>> 1;
      this.insist('E18', pair < state.activePairs, `a packet in pair ${pair}, of which ${state.activePairs} are on`);
      this.#checkReceived(used);
    }
    if (kind !== 'control') return;
    for (const { chain, length } of used) checkAnswer(chain.readable, chain.written, length, state, violations);
  }

  protected checkKicks(kicks: number | undefined, isDue: boolean): void {
    if (kicks !== undefined && isDue) this.insist('D27', kicks > 0, 'the device asked for a notification and got none');
  }
  protected checkCalls(calls: number | undefined, isDue: boolean): void {
    if (calls !== undefined && isDue) this.insist('E9', calls > 0, 'the driver asked for a notification and got none');
  }

  #checkSent(chain: RecordedChain): void {
    const { state, mtu, violations, ring } = this.ruled;
    this.insist('D22', chain.capacity === 0, 'a packet to be sent with a part to be written');
    checkSentPacket(chain.readable, this.features, mtu, violations);
    const pair = ring >>> 1;
    this.insist('D39', pair < state.activePairs, `a packet on pair ${pair}, of which ${state.activePairs} are on`);
  }

  #checkReceiveBuffer(chain: RecordedChain): void {
    this.insist('D22', chain.readable.length === 0, 'a receive buffer with a part to be read');
    const isSegmented = guestSegmentation.some((feature) => this.has(feature));
    const frame = isSegmented ? SEGMENTED_BYTES : FRAME_BYTES;
    const least = this.#headerBytes + (this.has(Feature.MRG_RXBUF) ? 0 : frame);
    this.insist('D35', chain.capacity >= least, `a receive buffer of ${chain.capacity} bytes, not ${least}`);
  }

  #checkReceived(used: readonly UsedChain[]): void {
    const mergeable = this.has(Feature.MRG_RXBUF);
    for (let at = 0; at < used.length; ) {
      const header = used[at]!.chain.written.subarray(0, used[at]!.length);
      if (!this.insist('E12', header.length >= this.#headerBytes, `a buffer of ${header.length} bytes`)) return;
      const hasCount = this.#headerBytes > NUM_BUFFERS_AT;
      const count = hasCount ? header[NUM_BUFFERS_AT]! | (header[NUM_BUFFERS_AT + 1]! << 8) : 1;
      if (!mergeable)
        this.insist('E12', count === 1, `num_buffers is ${count} without ${featureName(Feature.MRG_RXBUF)}`);
      const isWhole = count >= 1 && at + count <= used.length;
      if (!this.insist('E12', isWhole, `a packet of ${count} buffers, of which ${used.length - at} came`)) return;
      const parts = used.slice(at, at + count);
      const isFull = parts.slice(0, -1).every(({ chain, length }) => length === chain.capacity);
      this.insist('E12', isFull, 'a buffer that is not full and not the last of its packet');
      const packet = Buffer.concat(parts.map(({ chain, length }) => chain.written.subarray(0, length)));
      checkReceivedPacket(packet, this.features, this.ruled.mtu, this.ruled.violations);
      at += count;
    }
  }
}

/** Whether `event` is one of the `count` numbers from `first` on, which begin anew at `numbers`. */
export const isAmong = (event: number, first: number, count: number, numbers: number): boolean =>
  (event - first + numbers) % numbers < count;
