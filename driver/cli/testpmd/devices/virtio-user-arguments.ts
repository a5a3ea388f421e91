/** What follows `net_virtio_user0` on the command line: DPDK's arguments, its usual values and its complaints. */

import { ErrorCode, VirtioError } from '../../../errors.js';
import { DeviceArguments } from './device-arguments.js';

const KEYS = [
  'path',
  'mac',
  'queues',
  'queue_size',
  'server',
  'mrg_rxbuf',
  'in_order',
  'packed_vq',
  'vectorized',
  'speed',
  'cq',
  'iface',
] as const;
/** `VIRTIO_MAX_VIRTQUEUE_PAIRS`. */
const MAX_QUEUES = 8;
const USUAL_RING = 256;
const VHOST_NET = '/dev/vhost-net';
const UNKNOWN_SPEED = 0xffff_ffff;

export interface VirtioUserArguments {
  readonly backend: 'vhost-user' | 'vhost-kernel';
  readonly path: string;
  /** The tap of a vhost-kernel back-end. */
  readonly interface: string | undefined;
  readonly macAddress: Uint8Array | undefined;
  readonly queues: number;
  readonly queueSize: number;
  readonly server: boolean;
  readonly mergeable: boolean;
  readonly inOrder: boolean;
  readonly packed: boolean;
  readonly speed: number | undefined;
  readonly hasControlQueue: boolean;
}

/** @throws VirtioError INVALID_ARGUMENT with the line of DPDK's log */
export function parseVirtioUserArguments(devargs: string): VirtioUserArguments {
  const given = parse(devargs);
  const path = given.last('path');
  if (path === undefined) throw refused('arg path is mandatory for virtio_user');
  const backend = path === VHOST_NET ? 'vhost-kernel' : 'vhost-user';
  const ifname = given.last('iface');
  if (ifname !== undefined && backend !== 'vhost-kernel') {
    throw refused('arg iface applies only to vhost-kernel backend');
  }
  const queues = number(given, 'queues', 1);
  const hasControlQueue = number(given, 'cq', queues > 1 ? 1 : 0) !== 0;
  if (queues > 1 && !hasControlQueue) throw refused('multi-q requires ctrl-q');
  if (queues > MAX_QUEUES) throw refused(`arg queues ${queues} exceeds the limit ${MAX_QUEUES}`);
  const speed = number(given, 'speed', UNKNOWN_SPEED);
  return {
    backend,
    path,
    interface: ifname,
    macAddress: macOf(given.last('mac')),
    queues: Math.max(queues, 1),
    queueSize: number(given, 'queue_size', USUAL_RING),
    server: number(given, 'server', 0) !== 0,
    mergeable: number(given, 'mrg_rxbuf', 1) !== 0,
    inOrder: number(given, 'in_order', 1) !== 0,
    packed: number(given, 'packed_vq', 0) !== 0,
    speed: speed === UNKNOWN_SPEED ? undefined : speed,
    hasControlQueue,
  };
}

function parse(devargs: string): DeviceArguments {
  try {
    return DeviceArguments.parse(devargs, KEYS);
  } catch (cause) {
    throw refused('error when parsing param', cause);
  }
}

/** As `strtoull` has it: what begins with no digit is 0. */
function number(given: DeviceArguments, key: (typeof KEYS)[number], usual: number): number {
  const text = given.last(key);
  if (text === undefined) return usual;
  const [digits] = /^(0x[0-9a-f]+|\d+)/i.exec(text) ?? ['0'];
  return Number(digits);
}

/** One that is no address counts for none, as DPDK has it. */
function macOf(text: string | undefined): Uint8Array | undefined {
  const isAddress = text !== undefined && /^([0-9a-f]{1,2}:){5}[0-9a-f]{1,2}$/i.test(text);
  return isAddress ? Uint8Array.from(text.split(':'), (octet) => Number.parseInt(octet, 16)) : undefined;
}

const refused = (line: string, cause?: unknown): VirtioError =>
  new VirtioError(ErrorCode.INVALID_ARGUMENT, `virtio_user_pmd_probe(): ${line}`, { cause });
