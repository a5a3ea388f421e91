/** How a device finds the receive queue of a packet, and which hashes it reports (virtio 1.2 §5.1.6.5.6.4, §5.1.6.5.7). */

import { ControlClass, MqCommand } from '../spec/control.js';
import { virtioNetConfig } from '../spec/net-config.js';
import { isPowerOfTwo } from '../units.js';
import { type HashSettings, hashData, type RssSettings, rssData } from './control-requests.js';
import { type ControlSender, checkSetting, type KeptSettings } from './control-sender.js';

/** What a device can do of hashes: which it can report, and what RSS can be told. */
export interface RssLimits {
  readonly maxKeyBytes: number;
  /** Zero for a device that reports hashes, and has no RSS. */
  readonly maxTableEntries: number;
  /** Mask of `HashType`. */
  readonly hashTypes: number;
}

/** The last command of the two counts: each says anew how packets find their queue. */
export class SteeringSettings implements KeptSettings {
  readonly #sender: ControlSender;
  #rss: RssSettings | undefined;
  #hashes: HashSettings | undefined;

  constructor(sender: ControlSender) {
    this.#sender = sender;
  }

  get rss(): RssSettings | undefined {
    return this.#rss;
  }
  get hashes(): HashSettings | undefined {
    return this.#hashes;
  }

  async setRss(settings: RssSettings): Promise<void> {
    const copy = { ...settings, key: settings.key.slice(), table: [...settings.table] };
    await this.#sendRss(copy);
    this.#rss = copy;
    this.#hashes = undefined;
  }

  async setHashes(settings: HashSettings): Promise<void> {
    const copy = { ...settings, key: settings.key.slice() };
    await this.#sendHashes(copy);
    this.#hashes = copy;
    this.#rss = undefined;
  }

  async restore(): Promise<void> {
    if (this.#rss !== undefined) await this.#sendRss(this.#rss);
    if (this.#hashes !== undefined) await this.#sendHashes(this.#hashes);
  }
  forget(): void {
    this.#rss = undefined;
    this.#hashes = undefined;
  }

  /** Of RSS, or of the reports of a device that has these alone; a field that the device does not have counts as 0. */
  async limits(command: number = MqCommand.RSS_CONFIG): Promise<RssLimits> {
    this.#sender.accepted(ControlClass.MQ, command);
    const view = new DataView(new ArrayBuffer(virtioNetConfig.bytes));
    const { rss_max_key_size, rss_max_indirection_table_length, supported_hash_types } = virtioNetConfig.fields;
    const table = command === MqCommand.RSS_CONFIG ? [rss_max_indirection_table_length] : [];
    for (const { offset, bytes } of [rss_max_key_size, supported_hash_types, ...table]) {
      new Uint8Array(view.buffer).set(await this.#sender.device.readConfig(offset, bytes), offset);
    }
    const config = virtioNetConfig.read(view);
    return {
      maxKeyBytes: config.rss_max_key_size,
      maxTableEntries: config.rss_max_indirection_table_length,
      hashTypes: config.supported_hash_types,
    };
  }

  /** "A driver MUST …" each of these (virtio 1.2 §5.1.6.5.7.1). */
  async #sendRss(settings: RssSettings): Promise<void> {
    const { table, unclassifiedQueue = 0 } = settings;
    const limits = await this.limits();
    checkHashes(settings, limits);
    const isTable = isPowerOfTwo(table.length) && table.length <= limits.maxTableEntries;
    checkSetting(
      isTable,
      `a table has a power of two of entries, here ${limits.maxTableEntries} at most`,
      table.length,
    );
    for (const queue of [...table, unclassifiedQueue]) this.#sender.checkPair(queue);
    const data = rssData(settings, this.#sender.device.queuePairs);
    await this.#sender.send(ControlClass.MQ, MqCommand.RSS_CONFIG, data);
  }

  async #sendHashes(settings: HashSettings): Promise<void> {
    checkHashes(settings, await this.limits(MqCommand.HASH_CONFIG));
    await this.#sender.send(ControlClass.MQ, MqCommand.HASH_CONFIG, hashData(settings));
  }
}

function checkHashes({ key, hashTypes }: HashSettings, limits: RssLimits): void {
  const isKey = key.length <= limits.maxKeyBytes;
  checkSetting(isKey, `the device takes keys of ${limits.maxKeyBytes} bytes at most`, key.length);
  const isHashed = Number.isInteger(hashTypes) && (hashTypes & ~limits.hashTypes) === 0;
  checkSetting(isHashed, `the device has the hash types 0x${limits.hashTypes.toString(16)}`, hashTypes);
}
