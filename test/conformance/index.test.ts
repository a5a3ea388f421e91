/**
 * A test of the tests: each requirement of a driver (D1 to D42) and of a device (E1 to E20) is in the name of a test, none
 * of those is skipped, and what is waiting for a feature that is not there yet is written down, with that feature.
 */

import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { offeredFeatures } from '../../driver/backend/net-device-offer.js';
import { type FeatureChoices, wishes } from '../../driver/net/negotiation.js';
import { Feature, featureName } from '../../driver/spec/features.js';
import type { Rule } from '../support/spec/violations.js';
import { findTestFiles } from '../support/test-files.js';

const test = suite('every requirement has a test');
const root = fileURLToPath(new URL('../../../', import.meta.url));

const numbers = (count: number): number[] => Array.from({ length: count }, (_, index) => index + 1);
const RULES: readonly Rule[] = [
  ...numbers(42).map((number) => `D${number}` as const),
  ...numbers(20).map((number) => `E${number}` as const),
];

/**
 * The part of each requirement that there is only with a feature. The recorders judge it as soon as the feature is accepted:
 * `spec-traffic` and `spec-offloads` open ports with all that driver and device have.
 */
const FEATURED: Readonly<Partial<Record<Rule, readonly Feature[]>>> = {
  D18: [Feature.RING_RESET],
  D25: [Feature.IN_ORDER],
  D33: [Feature.CSUM, Feature.HOST_TSO4, Feature.HOST_TSO6, Feature.HOST_ECN, Feature.HOST_USO, Feature.HOST_UFO],
  D34: [Feature.CSUM, Feature.GUEST_HDRLEN],
  D35: [Feature.HASH_REPORT, Feature.GUEST_TSO4, Feature.GUEST_TSO6],
  D36: [Feature.GUEST_CSUM, Feature.RSC_EXT],
  D38: [Feature.SPEED_DUPLEX],
  E6: [Feature.RING_RESET],
  E10: [Feature.IN_ORDER],
  E13: [Feature.GUEST_CSUM, Feature.GUEST_TSO4, Feature.GUEST_TSO6, Feature.GUEST_UFO, Feature.RSC_EXT],
  E14: [Feature.CSUM, Feature.HOST_TSO4, Feature.HOST_TSO6],
  E18: [Feature.RSS],
};

/** Exactly what is not there yet. Whoever adds the feature takes its lines out, and the tests of that name count for it. */
const WAITING: readonly string[] = [];

/** Every choice that makes a driver ask for more; one that this driver does not know asks for nothing. */
const everything = {
  queuePairs: 2,
  eventIndex: true,
  notificationData: true,
  ring: 'packed',
  vlanFilter: true,
  inOrder: true,
  ringReset: true,
  offloads: {
    ...{ txChecksum: true, tso: true, uso: true, ufo: true, vlanInsert: true },
    ...{ rxChecksum: true, lro: true, uro: true, ufoReceive: true, vlanStrip: true, rssHash: true },
  },
} as const;

/** Whether the driver asks for a feature, or the device offers it. */
function isThere(rule: Rule, feature: Feature): boolean {
  const choices: FeatureChoices & typeof everything = everything;
  if (rule.startsWith('D')) return wishes(choices).some((wish) => wish.feature === feature);
  return offeredFeatures({ queuePairs: 2, mtu: 1500, iommu: true }).has(feature);
}

/** What a source says of tests: each call, and its name with the parts that are filled in left as they are. */
function testsIn(source: string): { readonly call: string; readonly name: string }[] {
  const found = source.matchAll(/\b(test(?:\.\w+)?)\(\s*(['"`])((?:\\.|(?!\2).)*)\2/gs);
  return [...found].map(([, call, , name]) => ({ call: call!, name: name! }));
}
const rulesIn = (name: string): Rule[] => [...name.matchAll(/\bspec-([DE]\d+)\b/g)].map(([, rule]) => rule as Rule);

const named = findTestFiles(root)
  .flatMap(({ name }) => testsIn(readFileSync(join(root, 'test', name), 'utf8')))
  .map((each) => ({ ...each, rules: rulesIn(each.name) }))
  .filter(({ rules }) => rules.length > 0);

test('each of D1 to D42 and E1 to E20 is in the name of a test', () => {
  const found = new Set(named.flatMap(({ rules }) => rules));
  assert.equal(
    RULES.filter((rule) => !found.has(rule)),
    [],
    'requirements without a test',
  );
  assert.equal(
    [...found].filter((rule) => !RULES.includes(rule)),
    [],
    'requirements that there are not',
  );
});

test('none of those tests is skipped, or runs alone', () => {
  assert.equal(
    named.filter(({ call }) => call !== 'test').map(({ call, name }) => `${call}: ${name}`),
    [],
  );
});

test('what waits for a feature is what the list says, no more and no less', () => {
  const waiting = (Object.entries(FEATURED) as [Rule, readonly Feature[]][]).flatMap(([rule, features]) =>
    features.filter((feature) => !isThere(rule, feature)).map((feature) => `${rule} ${featureName(feature)}`),
  );
  assert.equal(waiting, WAITING);
});

test.run();
