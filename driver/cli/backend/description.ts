/** What there is to know of a connection: features with their meaning, memory, where its rings stand, and who acts next. */

import type { ConnectionDescription } from '../../index.js';
import { duration, memorySize, plural } from '../output.js';
import type { Connection } from './connections.js';
import { featureNote } from './feature-notes.js';

type FeatureDescription = ConnectionDescription['features'][number];
type RegionDescription = ConnectionDescription['memory'][number];
type RingDescription = ConnectionDescription['rings'][number];

/** As scripts get it. */
export interface Description extends Omit<ConnectionDescription, 'features'> {
  readonly connection: number;
  readonly socket: string;
  readonly seconds: number;
  /** Processors that poll it; none where its threads are pinned to none. */
  readonly lcores: readonly number[];
  /** Those that are offered or accepted, with what they mean. */
  readonly features: readonly (FeatureDescription & { readonly note: string })[];
}

/** Returns undefined when the connection is over. */
export function describe(connection: Connection): Description | undefined {
  const description = connection.describe();
  if (description === undefined) return undefined;
  return {
    connection: connection.number,
    socket: connection.socket,
    seconds: Math.round(performance.now() - connection.since) / 1000,
    lcores: connection.place.lcores,
    ...description,
    features: description.features.map((feature) => ({ ...feature, note: featureNote(feature.name) })),
    protocolFeatures: description.protocolFeatures.filter(({ isOffered }) => isOffered),
    rings: description.rings.filter(isKnown),
  };
}

/** Front-ends set up the rings that they use, and say nothing of the others. */
const isKnown = ({ size, state, isEnabled }: RingDescription): boolean => size > 0 || state !== 'stopped' || isEnabled;

/** The same for people, some lines. */
export function descriptionText(description: Description): string {
  const { connection, socket, seconds, lcores, features, protocolFeatures, status } = description;
  const { memory, mtu, log, backendChannel, rings } = description;
  const accepted = features.filter(({ isAccepted }) => isAccepted);
  const others = features.filter(({ isAccepted }) => !isAccepted);
  const protocol = protocolFeatures.filter(({ isAccepted }) => isAccepted).map(({ name }) => name);
  const width = features.reduce((longest, { name }) => Math.max(longest, name.length), 0);
  const feature = ({ name }: FeatureDescription, text: string): string => `    ${name.padEnd(width)}  ${text}`;
  const lines = [
    `connection ${connection} on ${socket}, for ${duration(seconds)}; status: ${status}`,
    ...(lcores.length === 0 ? [] : [`  polled on ${plural(lcores.length, 'processor')}: ${lcores.join(', ')}`]),
    accepted.length === 0 ? '  features: none accepted yet' : '  features',
    ...accepted.map((each) => feature(each, each.note)),
    ...(others.length === 0 ? [] : ['  features that are not used']),
    ...others.map((each) => feature(each, each.why)),
    `  protocol features: ${protocol.length === 0 ? 'none' : protocol.join(' | ')}`,
    ...(backendChannel === 'none' ? [] : [`  channel for requests of the back-end: ${backendChannel}`]),
    memory.length === 0 ? '  memory: none yet' : '  memory',
    ...memory.map(regionText),
    ...(mtu === undefined ? [] : [`  MTU: ${mtu}, set by the front-end`]),
    ...(log?.isActive === true ? [`  dirty log: ${memorySize(log.bytes)}`] : []),
    rings.length === 0 ? '  rings: none set up yet' : '  rings',
    ...rings.flatMap(ringLines),
  ];
  return lines.map((line) => `${line}\n`).join('');
}

const regionText = ({ guestAddress, bytes, userAddress, fileOffset }: RegionDescription): string =>
  `    guest ${guestAddress}: ${memorySize(bytes)}, for the front-end at ${userAddress}, from byte ${fileOffset} of its file`;

function ringLines(ring: RingDescription): string[] {
  const { queue, size, state, isEnabled, addresses, base, indices, outstanding, kick, call, next, why } = ring;
  const set = [
    plural(size, 'entry', 'entries'),
    state,
    isEnabled ? 'enabled' : 'disabled',
    `kick: ${kick}`,
    `call: ${call}`,
  ];
  const position =
    indices === undefined
      ? [`base ${base}`, ...(outstanding === undefined ? [] : [`${outstanding} with the device`])]
      : [`available ${indices.available}, used ${indices.used}, ${indices.outstanding} with the device`];
  const turn = next === 'nobody' ? `nothing to do: ${why}` : `next is the ${next}: ${why}`;
  const parts =
    addresses === undefined
      ? []
      : [
          `      descriptors at ${addresses.descriptor}, available ring at ${addresses.available}, used ring at ${addresses.used}`,
        ];
  return [`    ${queue}: ${set.join(', ')}`, ...parts, `      ${[...position, turn].join('; ')}`];
}
