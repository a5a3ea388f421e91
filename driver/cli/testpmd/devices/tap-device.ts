/** `net_tap`: an interface of the kernel, with a queue for each queue of the port. */

import { ErrorCode, VirtioError } from '../../../errors.js';
import { libc } from '../../../pci/libc.js';
import { KernelTap } from '../../../transport/vhost-kernel-tap.js';
import { DeviceArguments } from './device-arguments.js';
import type { DeviceInfo, DeviceMaker, LcoreQueues, LinkState } from './ethernet-device.js';
import { InterfaceFlag, InterfaceSettings } from './interface-settings.js';
import { SoftwareDevice, type SoftwareQueues, unlimitedDevice } from './software-device.js';

const MAX_QUEUES = 16;
const TUN_PATH = '/dev/net/tun';
const HEADER_BYTES = 12;
/** `mac=fixed`: zero, `dtap`, and the number of the device. */
const FIXED_MAC_PREFIX = [0x00, 0x64, 0x74, 0x61, 0x70];
/** A frame with a VLAN tag and its check sequence. */
const MAX_FRAME_BYTES = 1522;
/** IPv4, UDP and TCP checksums and scattered packets; the same, segmentation and packets of several buffers. */
const RX_OFFLOADS = 0x200en;
const TX_OFFLOADS = 0x802en;
/** IPv4 and IPv6, fragments, TCP, UDP and others of both, and extension headers. */
const RSS_TYPES = 0x3_afbcn;
const HASH_KEY_BYTES = 40;
/** Up to that of the link, which is what DPDK's says. */
const SPEEDS = ['10 Mbps full-duplex', '100 Mbps full-duplex', '1 Gbps', '2.5 Gbps', '5 Gbps', '10 Gbps'] as const;

/** What an lcore is given. */
export interface TapQueues extends SoftwareQueues {
  readonly name: string;
  /** Descriptors of the queues, which are this device's. */
  readonly fds: readonly number[];
}

/** Devices that have been made: interfaces without a name, and addresses, are numbered by it. */
let devicesMade = 0;

export class TapPortDevice extends SoftwareDevice {
  readonly lcoreModule = new URL('./tap-lcore.js', import.meta.url);
  override readonly receivesAll = false;
  readonly #tap: KernelTap;
  readonly #interface: InterfaceSettings;
  readonly #macAddress: Uint8Array;
  #isStarted = false;
  /** Queues beside the first that the kernel sends to. */
  #attached = 0;

  /**
   * Makes the interface, or opens one that is there.
   *
   * @throws VirtioError as of `KernelTap.open`; INVALID_ARGUMENT and UNSUPPORTED for its arguments
   */
  constructor(name: string, devargs: string) {
    super(name, devargs, MAX_QUEUES);
    const given = DeviceArguments.parse(devargs, ['iface', 'mac', 'remote']);
    if (given.last('remote') !== undefined) {
      throw new VirtioError(ErrorCode.UNSUPPORTED, 'net_tap does not join another interface here', {
        value: given.last('remote'),
        advice: 'leave remote= out, and bridge both interfaces',
      });
    }
    const number = devicesMade++;
    const address = addressOf(given.last('mac'), number);
    const options = { name: given.last('iface') ?? `dtap${number}`, queues: MAX_QUEUES, path: TUN_PATH };
    this.#tap = KernelTap.open(libc(), options);
    this.#interface = new InterfaceSettings(this.#tap.name);
    try {
      this.#tap.setHeaderBytes(HEADER_BYTES);
      if (address !== undefined) this.#tap.setMacAddress(address);
      this.#macAddress = address ?? this.#interface.macAddress;
      this.#tap.connect();
    } catch (error) {
      this.#tap.close();
      throw error;
    }
  }

  info(): DeviceInfo {
    return {
      ...unlimitedDevice,
      driverName: 'net_tap',
      speeds: SPEEDS,
      macAddress: this.#macAddress,
      maxRxPacketBytes: MAX_FRAME_BYTES,
      maxRxQueues: MAX_QUEUES,
      maxTxQueues: MAX_QUEUES,
      rxOffloads: RX_OFFLOADS,
      txOffloads: TX_OFFLOADS,
      rxQueueOffloads: RX_OFFLOADS,
      txQueueOffloads: TX_OFFLOADS,
      rssTypes: RSS_TYPES,
      hashKeyBytes: HASH_KEY_BYTES,
    };
  }

  override async start(): Promise<void> {
    // The kernel sends to all queues that are attached: to no more than are polled.
    for (; this.#attached + 1 > this.rxQueues; this.#attached--) this.#tap.detach(this.#attached);
    for (; this.#attached + 1 < this.rxQueues; ) this.#tap.attach(++this.#attached);
    this.#interface.setFlag(InterfaceFlag.UP, true);
    await super.start();
    this.#isStarted = true;
  }

  override async stop(): Promise<void> {
    await super.stop();
    if (!this.#isStarted) return;
    this.#isStarted = false;
    if (this.#interface.isThere) this.#interface.setFlag(InterfaceFlag.UP, false);
  }

  override async close(): Promise<void> {
    await super.close();
    this.#tap.close();
  }

  /** That of the interface, whoever sets it. */
  override link(): LinkState {
    return { ...super.link(), up: this.#isStarted && this.#interface.isUp };
  }

  override lcoreData(queues: LcoreQueues): TapQueues {
    const fds = Array.from({ length: MAX_QUEUES }, (_, queue) => this.#tap.fd(queue));
    return { ...super.lcoreData(queues), name: this.#tap.name, fds };
  }

  async setLink(up: boolean): Promise<void> {
    this.#interface.setFlag(InterfaceFlag.UP, up);
  }

  async setPromiscuous(on: boolean): Promise<void> {
    this.#interface.setFlag(InterfaceFlag.PROMISCUOUS, on);
  }

  async setAllMulticast(on: boolean): Promise<void> {
    this.#interface.setFlag(InterfaceFlag.ALL_MULTICAST, on);
  }

  async setMtu(mtu: number): Promise<void> {
    this.#interface.setMtu(mtu);
  }

  async setMacAddress(address: Uint8Array): Promise<void> {
    this.#tap.setMacAddress(address);
    this.#macAddress.set(address);
  }

  async setMulticastAddresses(): Promise<void> {}
  async startQueue(): Promise<void> {}
  async stopQueue(): Promise<void> {}
}

/** @throws VirtioError INVALID_ARGUMENT for what is no address */
function addressOf(text: string | undefined, number: number): Uint8Array | undefined {
  if (text === undefined) return undefined;
  if (text.toLowerCase() === 'fixed') return Uint8Array.of(...FIXED_MAC_PREFIX, 0x30 + number);
  const parts = text.split(':');
  if (parts.length !== 6 || !parts.every((part) => /^[0-9a-f]{1,2}$/i.test(part))) {
    throw new VirtioError(ErrorCode.INVALID_ARGUMENT, `${text} is no MAC address`, { value: text });
  }
  return Uint8Array.from(parts, (part) => Number.parseInt(part, 16));
}

export const tapMaker: DeviceMaker = {
  matches: (name) => name.startsWith('net_tap'),
  make: async (name, devargs) => new TapPortDevice(name, devargs),
};
