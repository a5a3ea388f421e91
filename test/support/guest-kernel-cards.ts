/** Network cards that a guest's own kernel drives against our back-end: what each offers, and what the kernel says of it. */

import * as assert from 'uvu/assert';

import { Feature, featureName } from '../../driver/spec/features.js';
import type { Shell } from './guest-checks.js';
import type { CombinationOf } from './pairwise.js';

/** QEMU's properties of a card, and entries of its rings. */
export const PARAMETERS = {
  packed: [true, false],
  mq: [true, false],
  event_idx: [true, false],
  indirect_desc: [true, false],
  mrg_rxbuf: [true, false],
  /** 0 for none. */
  host_mtu: [1400, 0],
  entries: [256, 1024],
} as const;
export type KernelCard = CombinationOf<typeof PARAMETERS>;

const DEFAULT_MTU = 1500;
export const mtuOf = ({ host_mtu }: KernelCard): number => host_mtu || DEFAULT_MTU;
export const pairsOf = ({ mq }: KernelCard): number => (mq ? 2 : 1);

/** Names a card: `packed mq host_mtu, rings of 1024`. */
export const describeCard = ({ entries, ...features }: KernelCard): string =>
  `${Object.entries(features)
    .filter(([, value]) => value !== false && value !== 0)
    .map(([name]) => name)
    .join(' ')}, rings of ${entries}`;

/** Without mergeable buffers the kernel gives each long packet 64 KiB, for all entries of all cards more than the guest has. */
const NO_LONG_PACKETS = ['guest_tso4=off,guest_tso6=off,guest_ecn=off,guest_ufo=off'];

/** Returns properties of `virtio-net-pci`. */
export const propertiesOf = ({ entries, mq: _pairs, ...features }: KernelCard): string[] => [
  ...(features.mrg_rxbuf ? [] : NO_LONG_PACKETS),
  ...Object.entries(features).map(
    ([name, value]) => `${name}=${typeof value === 'number' ? value : value ? 'on' : 'off'}`,
  ),
  `rx_queue_size=${entries},tx_queue_size=${entries}`,
];

/** Fails where driver and device have not agreed on what the card has. */
export function assertFeatures(card: KernelCard, has: (feature: Feature) => boolean): void {
  const expected: readonly (readonly [Feature, boolean])[] = [
    [Feature.RING_PACKED, card.packed],
    [Feature.EVENT_IDX, card.event_idx],
    [Feature.INDIRECT_DESC, card.indirect_desc],
    [Feature.MRG_RXBUF, card.mrg_rxbuf],
  ];
  for (const [feature, isOn] of expected)
    assert.is(has(feature), isOn, `${describeCard(card)}: ${featureName(feature)}`);
}

/** Fails where the kernel's own tools show something else than the card has. */
export async function assertTools(guest: Shell, card: KernelCard, name: string): Promise<void> {
  const what = describeCard(card);
  const bits = (await guest.run(`cat /sys/class/net/${name}/device/features`)).trim();
  assertFeatures(card, (feature) => bits[feature] === '1');
  // QEMU's own: the socket does not carry them.
  assert.is(bits[Feature.MQ] === '1', card.mq, `${what}: MQ`);
  assert.is(bits[Feature.MTU] === '1', card.host_mtu !== 0, `${what}: MTU`);
  assert.match(await guest.run(`ethtool -i ${name}`), /^driver: virtio_net$/m);
  const rings = numbersOf(await guest.run(`ethtool -g ${name}`), 'RX', 'TX');
  assert.equal(rings, [card.entries, card.entries, card.entries, card.entries], `${what}: most and current entries`);
  const channels = numbersOf(await guest.run(`ethtool -l ${name}`), 'Combined');
  assert.equal(channels, [pairsOf(card), pairsOf(card)], `${what}: most and current pairs`);
  assert.match(await guest.run(`ethtool -k ${name}`), /^rx-vlan-filter: on \[fixed\]$/m, `${what}: CTRL_VLAN`);
  assert.is(Number(await guest.run(`cat /sys/class/net/${name}/mtu`)), mtuOf(card), `${what}: MTU`);
}

/** Values of lines of these names, in the order of the lines. */
const numbersOf = (output: string, ...names: readonly string[]): number[] =>
  [...output.matchAll(new RegExp(`^(?:${names.join('|')}):\\s+(\\d+)$`, 'gm'))].map(([, value]) => Number(value));

/** What `ethtool -S` counts of each queue. */
export interface KernelCounters {
  readonly received: readonly number[];
  readonly receivedBytes: readonly number[];
  readonly sent: readonly number[];
  readonly sentBytes: readonly number[];
}

export async function kernelCounters(guest: Shell, card: KernelCard, name: string): Promise<KernelCounters> {
  const output = await guest.run(`ethtool -S ${name}`);
  const of = (counter: string): number[] =>
    Array.from({ length: pairsOf(card) }, (_, pair) => {
      const [, value] = new RegExp(`${counter.replace('N', `${pair}`)}: (\\d+)$`, 'm').exec(output) ?? [];
      return Number(value);
    });
  return {
    received: of('rx_queue_N_packets'),
    receivedBytes: of('rx_queue_N_bytes'),
    sent: of('tx_queue_N_packets'),
    sentBytes: of('tx_queue_N_bytes'),
  };
}
