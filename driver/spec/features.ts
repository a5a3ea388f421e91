/**
 * Feature bits of virtio and virtio-net (virtio 1.2 §6, §5.1.3; 1.3 and 1.4 where noted), and sets of them.
 *
 * A set is 32-bit words as `device_feature_select` counts them: virtio 1.4 has bits past 63.
 */

/** Feature bits by number. */
export const Feature = {
  CSUM: 0,
  GUEST_CSUM: 1,
  CTRL_GUEST_OFFLOADS: 2,
  MTU: 3,
  MAC: 5,
  /** Legacy. */
  GSO: 6,
  GUEST_TSO4: 7,
  GUEST_TSO6: 8,
  GUEST_ECN: 9,
  GUEST_UFO: 10,
  HOST_TSO4: 11,
  HOST_TSO6: 12,
  HOST_ECN: 13,
  HOST_UFO: 14,
  MRG_RXBUF: 15,
  STATUS: 16,
  CTRL_VQ: 17,
  CTRL_RX: 18,
  CTRL_VLAN: 19,
  /** virtio 1.3. */
  CTRL_RX_EXTRA: 20,
  GUEST_ANNOUNCE: 21,
  MQ: 22,
  CTRL_MAC_ADDR: 23,
  /** Legacy. */
  NOTIFY_ON_EMPTY: 24,
  /** vhost: log all writes (migration). */
  LOG_ALL: 26,
  /** Legacy. */
  ANY_LAYOUT: 27,
  INDIRECT_DESC: 28,
  EVENT_IDX: 29,
  /** vhost-user: VHOST_USER_F_PROTOCOL_FEATURES. */
  PROTOCOL_FEATURES: 30,
  VERSION_1: 32,
  ACCESS_PLATFORM: 33,
  RING_PACKED: 34,
  IN_ORDER: 35,
  ORDER_PLATFORM: 36,
  SR_IOV: 37,
  NOTIFICATION_DATA: 38,
  NOTIF_CONFIG_DATA: 39,
  RING_RESET: 40,
  /** virtio 1.3; bit 41 was GUEST_RSC4 in legacy devices, which this driver never accepts. */
  ADMIN_VQ: 41,
  /** virtio 1.4. */
  SUSPEND: 43,
  /** virtio 1.4. */
  DEVICE_STATS: 50,
  /** virtio 1.3. */
  HASH_TUNNEL: 51,
  /** virtio 1.3. */
  VQ_NOTF_COAL: 52,
  /** virtio 1.3. */
  NOTF_COAL: 53,
  /** virtio 1.3. */
  GUEST_USO4: 54,
  /** virtio 1.3. */
  GUEST_USO6: 55,
  HOST_USO: 56,
  HASH_REPORT: 57,
  GUEST_HDRLEN: 59,
  RSS: 60,
  RSC_EXT: 61,
  STANDBY: 62,
  SPEED_DUPLEX: 63,
  /** virtio 1.4, as all from here. */
  RSS_CONTEXT: 64,
  GUEST_UDP_TUNNEL_GSO: 65,
  GUEST_UDP_TUNNEL_GSO_CSUM: 66,
  HOST_UDP_TUNNEL_GSO: 67,
  HOST_UDP_TUNNEL_GSO_CSUM: 68,
  OUT_NET_HEADER: 69,
  IPSEC: 70,
} as const;
export type Feature = (typeof Feature)[keyof typeof Feature];

/** What each bit needs beside it: every group must have one bit of the set (virtio 1.2 §5.1.3.1). */
export const featureRequirements: ReadonlyMap<number, readonly (readonly number[])[]> = new Map([
  [Feature.GUEST_TSO4, [[Feature.GUEST_CSUM]]],
  [Feature.GUEST_TSO6, [[Feature.GUEST_CSUM]]],
  [Feature.GUEST_ECN, [[Feature.GUEST_TSO4, Feature.GUEST_TSO6]]],
  [Feature.GUEST_UFO, [[Feature.GUEST_CSUM]]],
  [Feature.HOST_TSO4, [[Feature.CSUM]]],
  [Feature.HOST_TSO6, [[Feature.CSUM]]],
  [Feature.HOST_ECN, [[Feature.HOST_TSO4, Feature.HOST_TSO6]]],
  [Feature.HOST_UFO, [[Feature.CSUM]]],
  [Feature.CTRL_RX, [[Feature.CTRL_VQ]]],
  [Feature.CTRL_VLAN, [[Feature.CTRL_VQ]]],
  [Feature.CTRL_RX_EXTRA, [[Feature.CTRL_VQ]]],
  [Feature.GUEST_ANNOUNCE, [[Feature.CTRL_VQ]]],
  [Feature.MQ, [[Feature.CTRL_VQ]]],
  [Feature.CTRL_MAC_ADDR, [[Feature.CTRL_VQ]]],
  [Feature.HASH_TUNNEL, [[Feature.CTRL_VQ], [Feature.RSS, Feature.HASH_REPORT]]],
  [Feature.VQ_NOTF_COAL, [[Feature.CTRL_VQ]]],
  [Feature.NOTF_COAL, [[Feature.CTRL_VQ]]],
  [Feature.GUEST_USO4, [[Feature.GUEST_CSUM]]],
  [Feature.GUEST_USO6, [[Feature.GUEST_CSUM]]],
  [Feature.HOST_USO, [[Feature.CSUM]]],
  [Feature.RSS, [[Feature.CTRL_VQ]]],
  [Feature.RSC_EXT, [[Feature.HOST_TSO4, Feature.HOST_TSO6]]],
  [Feature.RSS_CONTEXT, [[Feature.CTRL_VQ], [Feature.RSS]]],
  [
    Feature.GUEST_UDP_TUNNEL_GSO,
    [[Feature.GUEST_TSO4], [Feature.GUEST_TSO6], [Feature.GUEST_USO4], [Feature.GUEST_USO6]],
  ],
  [Feature.GUEST_UDP_TUNNEL_GSO_CSUM, [[Feature.GUEST_UDP_TUNNEL_GSO]]],
  [Feature.HOST_UDP_TUNNEL_GSO, [[Feature.HOST_TSO4], [Feature.HOST_TSO6], [Feature.HOST_USO]]],
  [Feature.HOST_UDP_TUNNEL_GSO_CSUM, [[Feature.HOST_UDP_TUNNEL_GSO]]],
]);

const WORDS = 4;
const names: ReadonlyMap<number, string> = new Map(Object.entries(Feature).map(([name, number]) => [number, name]));

/** The name of a feature bit, or `bit 77`. */
export const featureName = (number: number): string => names.get(number) ?? `bit ${number}`;

/** An immutable set of feature bits, 0 to 127. */
export class FeatureSet {
  static readonly EMPTY = new FeatureSet(new Uint32Array(WORDS));
  readonly #words: Uint32Array;

  private constructor(words: Uint32Array) {
    this.#words = words;
  }

  static of(...bits: readonly number[]): FeatureSet {
    const words = new Uint32Array(WORDS);
    for (const number of bits) words[number >>> 5]! |= 1 << (number & 31);
    return new FeatureSet(words);
  }

  /** From the words of `device_feature`, in the order of `device_feature_select`; missing words are 0. */
  static fromWords(words: ArrayLike<number>): FeatureSet {
    return new FeatureSet(Uint32Array.from({ length: WORDS }, (_, index) => words[index] ?? 0));
  }

  /** From a vhost-user u64. */
  static fromU64(value: bigint): FeatureSet {
    return FeatureSet.fromWords([Number(value & 0xffff_ffffn), Number((value >> 32n) & 0xffff_ffffn)]);
  }

  has(number: number): boolean {
    return (this.word(number >>> 5) & (1 << (number & 31))) !== 0;
  }
  /** Word `index` as `device_feature_select` counts; 0 beyond the last. */
  word(index: number): number {
    return this.#words[index] ?? 0;
  }
  union(other: FeatureSet): FeatureSet {
    return FeatureSet.fromWords(this.#words.map((word, index) => word | other.word(index)));
  }
  intersection(other: FeatureSet): FeatureSet {
    return FeatureSet.fromWords(this.#words.map((word, index) => word & other.word(index)));
  }
  difference(other: FeatureSet): FeatureSet {
    return FeatureSet.fromWords(this.#words.map((word, index) => word & ~other.word(index)));
  }
  with(...bits: readonly number[]): FeatureSet {
    return this.union(FeatureSet.of(...bits));
  }
  without(...bits: readonly number[]): FeatureSet {
    return this.difference(FeatureSet.of(...bits));
  }
  equals(other: FeatureSet): boolean {
    return this.#words.every((word, index) => word === other.word(index));
  }
  isSubsetOf(other: FeatureSet): boolean {
    return this.difference(other).isEmpty;
  }
  get isEmpty(): boolean {
    return this.#words.every((word) => word === 0);
  }
  /** Bit numbers, ascending. */
  get bits(): number[] {
    return Array.from({ length: WORDS * 32 }, (_, number) => number).filter((number) => this.has(number));
  }
  get names(): string[] {
    return this.bits.map(featureName);
  }
  /** Bits 0 to 63 as a vhost-user u64. */
  toU64(): bigint {
    return (BigInt(this.word(1)) << 32n) | BigInt(this.word(0));
  }
  /** `CSUM | MAC | bit 77`; `none` when empty. */
  toString(): string {
    return this.isEmpty ? 'none' : this.names.join(' | ');
  }
}

/**
 * Removes bits whose requirements are not in the set, until none is left over.
 *
 * @returns the consistent set, and for each bit removed the bits that it lacked
 */
export function dropUnmetRequirements(set: FeatureSet): {
  features: FeatureSet;
  dropped: ReadonlyMap<number, readonly number[]>;
} {
  const dropped = new Map<number, readonly number[]>();
  let features = set;
  for (let changed = true; changed; ) {
    changed = false;
    for (const number of features.bits) {
      const unmet = (featureRequirements.get(number) ?? []).find(
        (group) => !group.some((other) => features.has(other)),
      );
      if (unmet !== undefined) {
        dropped.set(number, unmet);
        features = features.without(number);
        changed = true;
      }
    }
  }
  return { features, dropped };
}
