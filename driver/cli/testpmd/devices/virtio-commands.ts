/** A virtio port whose device takes commands in a control queue: modes, addresses, VLANs, RSS (virtio 1.2 §5.1.6.5). */

import { ErrorCode, VirtioError } from '../../../errors.js';
import { Feature } from '../../../spec/features.js';
import type { DeviceConfiguration, DeviceInfo } from './ethernet-device.js';
import { VirtioDevice } from './virtio-device.js';
import { ETHDEV_RSS_TYPES, ethdevTypes, hashTypesOf } from './virtio-rss.js';

/** `VIRTIO_NET_RSS_KEY_SIZE` and `VIRTIO_NET_RSS_RETA_SIZE`. */
const KEY_BYTES = 40;
const TABLE_SIZE = 128;
/** The key that RSS was published with. */
const usualKey = Uint8Array.from(
  Buffer.from('6d5a56da255b0ec24167253d43a38fb0d0ca2bcbae7b30b477cb2da38030f20c6a42b73bbeac01fa', 'hex'),
);

export class CommandedVirtioDevice extends VirtioDevice {
  #queues = 1;

  override info(): DeviceInfo {
    const hasRss = this.offered.has(Feature.RSS);
    return {
      ...super.info(),
      ...(hasRss && { rssTypes: ETHDEV_RSS_TYPES, hashKeyBytes: KEY_BYTES, redirectionTableSize: TABLE_SIZE }),
    };
  }

  override async configure(configuration: DeviceConfiguration): Promise<void> {
    await super.configure(configuration);
    this.#queues = Math.max(configuration.rxQueues, 1);
  }

  async setPromiscuous(on: boolean): Promise<void> {
    await this.port.control.setPromiscuous(on);
  }
  async setAllMulticast(on: boolean): Promise<void> {
    await this.port.control.setAllMulticast(on);
  }
  async setMacAddress(address: Uint8Array): Promise<void> {
    await this.port.control.setMacAddress(address);
  }
  async addMacAddress(address: Uint8Array): Promise<void> {
    await this.port.control.addMacAddress(address);
  }
  async removeMacAddress(address: Uint8Array): Promise<void> {
    await this.port.control.removeMacAddress(address);
  }
  async filterVlan(vlan: number, on: boolean): Promise<void> {
    await this.port.control.setVlan(vlan, on);
  }

  async setRss(types: bigint, key: Uint8Array | undefined): Promise<void> {
    if ((types & ~ETHDEV_RSS_TYPES) !== 0n || (key !== undefined && key.length !== KEY_BYTES)) {
      throw new VirtioError(ErrorCode.INVALID_ARGUMENT, `the device hashes no such packets, or not with such a key`);
    }
    await this.#steer({ hashTypes: hashTypesOf(types), ...(key !== undefined && { key }) });
  }
  async rss(): Promise<{ readonly types: bigint; readonly key: Uint8Array }> {
    const { hashTypes, key } = this.#settings;
    return { types: ethdevTypes(hashTypes), key };
  }
  async redirectionTable(): Promise<readonly number[]> {
    return this.#settings.table;
  }
  async setRedirectionTable(entries: ReadonlyMap<number, number>): Promise<void> {
    await this.#steer({ table: this.#settings.table.map((queue, index) => entries.get(index) ?? queue) });
  }

  /** What the device was told last; all queues in turn before that. */
  get #settings() {
    const { rss } = this.port.control;
    return (
      rss ?? { hashTypes: 0, key: usualKey, table: Array.from({ length: TABLE_SIZE }, (_, at) => at % this.#queues) }
    );
  }

  async #steer(changes: { hashTypes?: number; key?: Uint8Array; table?: readonly number[] }): Promise<void> {
    if (!this.offered.has(Feature.RSS)) throw new VirtioError(ErrorCode.FEATURE_MISSING, `${this.name} has no RSS`);
    await this.port.control.setRss({ ...this.#settings, ...changes });
  }
}
