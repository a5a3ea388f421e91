/** The ten ways through the rings that DPDK's own loop-back plan measures, each with how to ask for it and to prove it. */

import { ErrorCode, VirtioError } from 'virtio-pmd';

/** One path: what is negotiated, and what DPDK's virtio driver says when it took it. */
export interface RingPath {
  readonly name: string;
  readonly packed: boolean;
  readonly mergeable: boolean;
  readonly inOrder: boolean;
  /** DPDK's vector instructions on the driver's side. */
  readonly vectorized: boolean;
  /** The lines of DPDK's log that prove it. */
  readonly log: { readonly receive: string; readonly send: string };
}

const path = (
  name: string,
  { packed = false, mergeable = false, inOrder = false, vectorized = false },
  receive: string,
  send: string,
): RingPath => ({ name, packed, mergeable, inOrder, vectorized, log: { receive, send } });

const STANDARD = 'using standard Tx path';
const PACKED_STANDARD = 'using packed ring standard Tx path';

export const PATHS: readonly RingPath[] = [
  path('split_mergeable', { mergeable: true }, 'using mergeable buffer Rx path', STANDARD),
  path('split_non_mergeable', {}, 'using standard Rx path', STANDARD),
  path('split_inorder_mergeable', { mergeable: true, inOrder: true }, 'using inorder Rx path', 'using inorder Tx path'),
  path('split_inorder_non_mergeable', { inOrder: true }, 'using inorder Rx path', 'using inorder Tx path'),
  path('split_vectorized', { vectorized: true }, 'using vectorized Rx path', STANDARD),
  path(
    'packed_mergeable',
    { packed: true, mergeable: true },
    'using packed ring mergeable buffer Rx path',
    PACKED_STANDARD,
  ),
  path('packed_non_mergeable', { packed: true }, 'using packed ring standard Rx path', PACKED_STANDARD),
  path(
    'packed_inorder_mergeable',
    { packed: true, mergeable: true, inOrder: true },
    'using packed ring mergeable buffer Rx path',
    PACKED_STANDARD,
  ),
  path(
    'packed_inorder_non_mergeable',
    { packed: true, inOrder: true },
    'using packed ring standard Rx path',
    PACKED_STANDARD,
  ),
  path(
    'packed_vectorized',
    { packed: true, inOrder: true, vectorized: true },
    'using packed ring vectorized Rx path',
    'using packed ring vectorized Tx path',
  ),
];

/** The paths measured when none is named. */
export const DEFAULT_PATHS: readonly string[] = ['split_mergeable', 'split_non_mergeable'];

/**
 * The paths of a comma-separated list, or all of them for `all`.
 *
 * @throws VirtioError INVALID_ARGUMENT for a name that is none.
 */
export function choosePaths(list: string): RingPath[] {
  if (list === 'all') return [...PATHS];
  return list.split(',').map((name) => {
    const found = PATHS.find((candidate) => candidate.name === name);
    if (found !== undefined) return found;
    const advice = `take one of ${PATHS.map((known) => known.name).join(', ')}, or all`;
    throw new VirtioError(ErrorCode.INVALID_ARGUMENT, `there is no path ${name}`, { value: name, advice });
  });
}

const flag = (value: boolean) => (value ? 1 : 0);

/** The path as `net_virtio_user` device arguments. */
export const virtioUserArguments = (ring: RingPath): string =>
  [
    `packed_vq=${flag(ring.packed)}`,
    `mrg_rxbuf=${flag(ring.mergeable)}`,
    `in_order=${flag(ring.inOrder)}`,
    `vectorized=${flag(ring.vectorized)}`,
  ].join(',');

/** EAL's arguments without which DPDK has only narrower vectors than its packed vectorized path is made of. */
export const WIDE_VECTORS = ['--force-max-simd-bitwidth=512'] as const;

/** What DPDK's virtio driver says of each of its ports only when it is asked to. */
export const VIRTIO_LOG = ['--log-level=pmd.net.virtio.*:info'] as const;

/** Feature bits that tell the paths apart (virtio 1.2 §5.1.3, §6). */
const BIT = { mergeable: 15n, packed: 34n, inOrder: 35n } as const;

/** Whether a feature that tells paths apart is among the negotiated ones. */
const isNegotiated = (features: bigint, key: keyof typeof BIT): boolean => ((features >> BIT[key]) & 1n) !== 0n;

/**
 * The path that DPDK's virtio driver takes where it was asked for `ring` and these features were negotiated.
 *
 * Without IN_ORDER there are no vectors for packed rings, with IN_ORDER or mergeable buffers none for split ones.
 */
export function pathTaken(ring: RingPath, features: bigint): RingPath {
  const [packed, mergeable, inOrder] = (['packed', 'mergeable', 'inOrder'] as const).map((key) =>
    isNegotiated(features, key),
  );
  const takes = (vectorized: boolean): RingPath | undefined =>
    PATHS.find(
      (path) =>
        path.packed === packed &&
        path.mergeable === mergeable &&
        path.inOrder === inOrder &&
        path.vectorized === vectorized,
    );
  return (ring.vectorized ? takes(true) : undefined) ?? takes(false)!;
}

/**
 * What is wrong with the negotiated features for this path, in words; empty when they are the path's.
 *
 * A driver may leave VIRTIO_F_IN_ORDER out only where the path does not name it.
 */
export function featureMismatch(ring: RingPath, features: bigint): string {
  const keys = Object.keys(BIT) as (keyof typeof BIT)[];
  const wrong = keys.filter((key) => isNegotiated(features, key) !== ring[key]);
  return wrong.map((key) => `${key} is ${ring[key] ? 'off' : 'on'}`).join(', ');
}
