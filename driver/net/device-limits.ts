/** What a device says of itself in its configuration, checked before any of it is believed (virtio 1.2 §5.1.4). */

import { randomBytes } from 'node:crypto';
import { ErrorCode, VirtioError } from '../errors.js';
import type { PacketPool } from '../memory/packet-pool.js';
import { ETHERNET_HEADER_BYTES, MAX_PACKET_BYTES } from '../spec/ethernet.js';
import { Feature, type FeatureSet } from '../spec/features.js';
import { VLAN_TAG_BYTES } from '../spec/internet.js';
import {
  controlqIndex,
  MAC_BYTES,
  MTU_MAX,
  MTU_MIN,
  QUEUE_PAIRS_MAX,
  QUEUE_PAIRS_MIN,
  virtioNetConfig,
} from '../spec/net-config.js';
import { netHeaderBytes } from '../spec/net-header.js';
import type { Transport } from '../spec/transport.js';
import { longPacketFeatures } from './port-offloads.js';

/** Longest packet that a device may put into one buffer (virtio 1.2 §5.1.6.3.1): without segmentation, and with. */
const RECEIVE_FRAME_BYTES = 1514;
const RECEIVE_SEGMENT_BYTES = 65_589;

/** What a port goes by until its next start. */
export interface DeviceLimits {
  /** `max_virtqueue_pairs`, which decides where the control queue is; 1 without MQ and RSS. */
  readonly maxPairs: number;
  /** Longest packet that may be sent, Ethernet header included. */
  readonly maxFrameBytes: number;
  /** The device's MTU; `MTU_MAX` where it has none, or one that cannot be. */
  readonly maxMtu: number;
  /** The address in the configuration; undefined without MAC. */
  readonly macAddress: Uint8Array | undefined;
  /** What the device says that cannot be, and what was done instead. */
  readonly warnings: readonly string[];
}

/** A random unicast address of the kind that anybody may give himself. */
export function randomLocalAddress(): Uint8Array {
  const address = new Uint8Array(randomBytes(MAC_BYTES));
  address[0] = (address[0]! & ~1) | 2;
  return address;
}

/**
 * Reads and checks.
 *
 * @param ownAddress taken where the device's MAC address is none
 * @param wantedMtu longest packet that the application wants to send, in bytes behind the Ethernet header
 * @throws VirtioError DEVICE_BROKEN, FEATURE_MISSING, INVALID_ARGUMENT for buffers that are too small
 */
export async function readDeviceLimits(
  transport: Transport,
  features: FeatureSet,
  queuePairs: number,
  pool: PacketPool,
  ownAddress: Uint8Array,
  wantedMtu?: number,
): Promise<DeviceLimits> {
  const warnings: string[] = [];
  const receiveBytes = checkReceiveBuffers(pool, features);
  const macAddress = await soundMacAddress(transport, features, ownAddress, warnings);
  const maxPairs = await readMaxPairs(transport, features, queuePairs);
  const ownMtu = await readMtu(transport, features, warnings);
  const maxMtu = ownMtu ?? MTU_MAX;
  if (wantedMtu !== undefined && wantedMtu > maxMtu) throw mtuTooLong(transport.address, wantedMtu, maxMtu);
  const maxFrameBytes = frameLimit(wantedMtu ?? ownMtu, features, receiveBytes, warnings);
  return { maxPairs, maxFrameBytes, maxMtu, macAddress, warnings };
}

/**
 * Returns the bytes of a packet that fit one receive buffer.
 *
 * "If VIRTIO_NET_F_MRG_RXBUF is not negotiated: … the driver SHOULD populate the receive queue(s) with buffers of at
 * least 1526 bytes", 12 of them header, and far more with segmentation by the device (virtio 1.2 §5.1.6.3.1).
 */
function checkReceiveBuffers(pool: PacketPool, features: FeatureSet): number {
  const receiveBytes = pool.bufferBytes - pool.headroom;
  if (features.has(Feature.MRG_RXBUF)) return receiveBytes;
  const isSegmented = longPacketFeatures.some((feature) => features.has(feature));
  const needed = isSegmented ? RECEIVE_SEGMENT_BYTES : RECEIVE_FRAME_BYTES;
  if (receiveBytes >= needed) return receiveBytes;
  const header = netHeaderBytes(features);
  throw new VirtioError(
    ErrorCode.INVALID_ARGUMENT,
    `receive buffers of ${receiveBytes + header} bytes are too small without MRG_RXBUF: a device may fill ${needed + header}`,
    {
      value: receiveBytes + header,
      requirement: 'virtio 1.2 §5.1.6.3.1',
      advice: `use buffers of at least ${needed + pool.headroom} bytes, or a device that offers MRG_RXBUF`,
    },
  );
}

/** Returns the device's address, or the port's own where that is no address of one station. */
async function soundMacAddress(
  transport: Transport,
  features: FeatureSet,
  own: Uint8Array,
  warnings: string[],
): Promise<Uint8Array | undefined> {
  if (!features.has(Feature.MAC)) return undefined;
  const { mac } = virtioNetConfig.fields;
  const address = await transport.readConfig(mac.offset, mac.bytes);
  const isMulticast = (address[0]! & 1) !== 0;
  if (!isMulticast && address.some((byte) => byte !== 0)) return address;
  warnings.push(
    `the device's MAC address ${colons(address)} is ${isMulticast ? 'one of many' : 'zero'}: ${colons(own)} is used`,
  );
  return own;
}

const colons = (address: Uint8Array): string =>
  Array.from(address, (byte) => byte.toString(16).padStart(2, '0')).join(':');

async function readMaxPairs(transport: Transport, features: FeatureSet, wanted: number): Promise<number> {
  // "max_virtqueue_pairs … only exists if VIRTIO_NET_F_MQ or VIRTIO_NET_F_RSS is set" (virtio 1.2 §5.1.4).
  const hasPairs = features.has(Feature.MQ) || features.has(Feature.RSS);
  const maxPairs = hasPairs ? await readWord(transport, virtioNetConfig.fields.max_virtqueue_pairs) : 1;
  // "The device MUST set max_virtqueue_pairs to between 1 and 0x8000 inclusive" (virtio 1.2 §5.1.4.1).
  if (maxPairs < QUEUE_PAIRS_MIN || maxPairs > QUEUE_PAIRS_MAX) {
    throw broken(transport, `max_virtqueue_pairs is ${maxPairs}`, 'virtio 1.2 §5.1.4.1', maxPairs);
  }
  const queues = await transport.queueCount();
  const available = Math.min(maxPairs, Math.floor(queues / 2));
  if (wanted > available) {
    throw new VirtioError(
      ErrorCode.FEATURE_MISSING,
      `${wanted} queue pairs are wanted and the device at ${transport.address} has ${available}`,
      {
        value: wanted,
        requirement: 'virtio 1.2 §5.1.2',
        advice: `use ${available} here, or give the device more queues`,
      },
    );
  }
  if (features.has(Feature.CTRL_VQ) && transport.controlCommand === undefined && controlqIndex(maxPairs) >= queues) {
    const what = `of ${maxPairs} queue pairs and a control queue there are only ${queues} queues`;
    throw broken(transport, what, 'virtio 1.2 §5.1.2', queues);
  }
  return maxPairs;
}

/** The device's MTU; undefined where it has none. */
async function readMtu(transport: Transport, features: FeatureSet, warnings: string[]): Promise<number | undefined> {
  if (!features.has(Feature.MTU)) return undefined;
  const mtu = await readWord(transport, virtioNetConfig.fields.mtu);
  // "The device MUST set mtu to between 68 and 65535 inclusive": what does not is no limit (virtio 1.2 §5.1.4.1).
  if (mtu >= MTU_MIN) return mtu;
  warnings.push(`the device's MTU ${mtu} is below ${MTU_MIN}: it is ignored`);
  return undefined;
}

/** Longest frame that may be sent: an MTU with Ethernet header and one VLAN tag (virtio 1.2 §5.1.4.2). */
function frameLimit(mtu: number | undefined, features: FeatureSet, receiveBytes: number, warnings: string[]): number {
  if (mtu === undefined) return MAX_PACKET_BYTES;
  const frame = mtu + ETHERNET_HEADER_BYTES + VLAN_TAG_BYTES;
  if (features.has(Feature.MRG_RXBUF) || mtu + ETHERNET_HEADER_BYTES <= receiveBytes) return frame;
  warnings.push(
    `the MTU ${mtu} is more than receive buffers of ${receiveBytes} bytes take without MRG_RXBUF: frames are limited to that`,
  );
  return receiveBytes;
}

export const mtuTooLong = (address: string, mtu: number, most: number): VirtioError =>
  new VirtioError(ErrorCode.INVALID_ARGUMENT, `the device at ${address} has an MTU of ${most}, not ${mtu}`, {
    value: mtu,
    requirement: 'virtio 1.2 §5.1.4.2',
    advice: `set an MTU of ${most} or less`,
  });

async function readWord(
  transport: Transport,
  field: { readonly offset: number; readonly bytes: number },
): Promise<number> {
  const config = await transport.readConfig(field.offset, field.bytes);
  return new DataView(config.buffer, config.byteOffset).getUint16(0, true);
}

const broken = (transport: Transport, what: string, requirement: string, value: unknown): VirtioError =>
  new VirtioError(ErrorCode.DEVICE_BROKEN, `the device at ${transport.address} is not sound: ${what}`, {
    value,
    requirement,
    advice: 'use another device: this one does not keep to the specification',
  });
