/** Turns the choice of `--features` into the bits that a device offers. */

import { ErrorCode, VirtioError } from '../../errors.js';
import { dropUnmetRequirements, Feature, FeatureSet } from '../../spec/features.js';
import type { FeatureChoice } from './feature-choice.js';

/** Offered whatever is chosen: there is no device here without them, and the socket adds the second. */
const ALWAYS: readonly Feature[] = [Feature.VERSION_1, Feature.PROTOCOL_FEATURES];

const invalid = (message: string, value: string, advice: string): VirtioError =>
  new VirtioError(ErrorCode.INVALID_ARGUMENT, `--features: ${message}`, { value, advice });

/** @throws VirtioError INVALID_ARGUMENT for a bit that `usual` has not got, or that lacks what it requires */
export function offeredFeatures(choice: FeatureChoice | undefined, usual: FeatureSet): FeatureSet {
  if (choice === undefined) return usual;
  const bits = choice.names.map((name) => bitOf(name, usual));
  if (choice.how === 'only') return consistent(usual.intersection(FeatureSet.of(...bits, ...ALWAYS)));
  const needed = bits.find((bit) => ALWAYS.includes(bit));
  if (needed !== undefined) {
    const name = `${FeatureSet.of(needed)}`;
    throw invalid(`${name} cannot be left out`, name, 'this back-end is a device of virtio 1.0 or later');
  }
  return consistent(usual.without(...bits));
}

function bitOf(name: string, usual: FeatureSet): Feature {
  const bit = Object.hasOwn(Feature, name) ? Feature[name as keyof typeof Feature] : undefined;
  if (bit === undefined) {
    throw invalid(
      `there is no feature ${name}`,
      name,
      'spell it as the specification does, such as MRG_RXBUF or EVENT_IDX',
    );
  }
  if (usual.has(bit) || ALWAYS.includes(bit)) return bit;
  throw invalid(`this back-end has not got ${name}`, name, `it has ${usual}`);
}

function consistent(features: FeatureSet): FeatureSet {
  const { dropped } = dropUnmetRequirements(features);
  for (const [bit, lacked] of dropped) {
    const [name, others] = [`${FeatureSet.of(bit)}`, lacked.map((other) => `${FeatureSet.of(other)}`).join(' or ')];
    throw new VirtioError(ErrorCode.INVALID_ARGUMENT, `--features: ${name} needs ${others}`, {
      value: name,
      requirement: 'virtio 1.2 §5.1.3.1',
      advice: `offer ${others} too, or leave ${name} out`,
    });
  }
  return features;
}
