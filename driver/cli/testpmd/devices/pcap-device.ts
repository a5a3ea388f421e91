/** `net_pcap`: receives the packets of capture files, and writes those that are sent to others. */

import { ErrorCode, VirtioError } from '../../../errors.js';
import { PcapReader } from '../../../pcap/pcap-reader.js';
import { PcapWriter } from '../../../pcap/pcap-writer.js';
import { DeviceArguments } from './device-arguments.js';
import type { DeviceInfo, DeviceMaker, LcoreLink, LcoreQueues } from './ethernet-device.js';
import { PCAP_POSITIONS, PCAP_SNAP_LENGTH, type PcapQueues } from './pcap-queues.js';
import { SoftwareDevice, unlimitedDevice } from './software-device.js';

const MAX_QUEUES = 16;
const FILES = ['rx_pcap', 'tx_pcap'] as const;
const INTERFACES = ['iface', 'rx_iface', 'rx_iface_in', 'tx_iface', 'phy_mac'] as const;
/** Locally administered, and `pcap`; the last byte is the device's. */
const MAC_PREFIX = [0x02, 0x70, 0x63, 0x61, 0x70];

/** Devices that have been made: their addresses differ by it. */
let devicesMade = 0;

export class PcapDevice extends SoftwareDevice {
  readonly hasNumaNode = false;
  readonly lcoreModule = new URL('./pcap-lcore.js', import.meta.url);
  readonly #macAddress = Uint8Array.of(...MAC_PREFIX, devicesMade++ & 0xff);
  readonly #rxFiles: readonly string[];
  readonly #txFiles: readonly string[];
  readonly #isInfinite: boolean;
  #positions: number[] = [];
  /** The transmit files are as they were when the device was made, or last started. */
  #areFilesFresh = true;

  /**
   * Opens the files to see that it can, and empties those that will be written.
   *
   * @throws VirtioError as of `PcapReader.open` and `PcapWriter.create`, UNSUPPORTED for network interfaces
   */
  constructor(name: string, devargs: string) {
    super(name, devargs, MAX_QUEUES);
    const given = DeviceArguments.parse(devargs, [...FILES, ...INTERFACES, 'infinite_rx']);
    const unsupported = INTERFACES.find((key) => given.last(key) !== undefined);
    if (unsupported !== undefined) {
      throw new VirtioError(ErrorCode.UNSUPPORTED, `net_pcap has files alone here, no ${unsupported}`, {
        value: unsupported,
        advice: 'use net_tap for packets of an interface',
      });
    }
    this.#rxFiles = given.all('rx_pcap');
    this.#txFiles = given.all('tx_pcap');
    this.#isInfinite = given.number('infinite_rx', 0) > 0;
    if (this.#rxFiles.length + this.#txFiles.length === 0) {
      throw new VirtioError(ErrorCode.INVALID_ARGUMENT, 'net_pcap needs rx_pcap, tx_pcap or both', { value: devargs });
    }
    this.#openFiles();
  }

  info(): DeviceInfo {
    return {
      ...unlimitedDevice,
      driverName: 'net_pcap',
      macAddress: this.#macAddress,
      maxRxQueues: this.#rxFiles.length || this.#txFiles.length,
      maxTxQueues: this.#txFiles.length || this.#rxFiles.length,
    };
  }

  /** Files begin anew after a stop. */
  override async start(): Promise<void> {
    if (!this.#areFilesFresh) this.#openFiles();
    await super.start();
  }

  override async stop(): Promise<void> {
    await super.stop();
    this.#areFilesFresh = false;
  }

  override lcoreData(queues: LcoreQueues): PcapQueues {
    return {
      ...super.lcoreData(queues),
      rxFiles: this.#rxFiles,
      txFiles: this.#txFiles,
      isInfinite: this.#isInfinite,
      positions: this.#positions,
    };
  }

  async detaching(link: LcoreLink): Promise<void> {
    const positions = await link.request<ReadonlyMap<number, number>>(PCAP_POSITIONS);
    for (const [queue, position] of positions) this.#positions[queue] = position;
  }

  async startQueue(): Promise<void> {}
  async stopQueue(): Promise<void> {}

  #openFiles(): void {
    for (const path of this.#rxFiles) PcapReader.open(path).close();
    for (const path of this.#txFiles) PcapWriter.create(path, { snapLength: PCAP_SNAP_LENGTH }).close();
    this.#positions = this.#rxFiles.map(() => 0);
    this.#areFilesFresh = true;
  }
}

export const pcapMaker: DeviceMaker = {
  matches: (name) => name.startsWith('net_pcap'),
  make: async (name, devargs) => new PcapDevice(name, devargs),
};
