/** `net_null`: packets of any content come as fast as they are taken, and those that are sent are freed. */

import { randomFillSync } from 'node:crypto';
import { ErrorCode, VirtioError } from '../../../errors.js';
import { DeviceArguments } from './device-arguments.js';
import type { DeviceInfo, DeviceMaker, LcoreQueues } from './ethernet-device.js';
import { SoftwareDevice, type SoftwareQueues, unlimitedDevice } from './software-device.js';

const MAX_QUEUES = 1024;
const PACKET_BYTES = 64;
/** All of `RTE_ETH_RSS_PROTO_MASK`. */
const RSS_TYPES = 0x2_003f_fffcn;
const REDIRECTION_TABLE_SIZE = 128;
const HASH_KEY_BYTES = 40;
/** The key that RSS was published with. */
const hashKey = Uint8Array.from(
  Buffer.from('6d5a56da255b0ec24167253d43a38fb0d0ca2bcbae7b30b477cb2da38030f20c6a42b73bbeac01fa', 'hex'),
);

/** What an lcore is given. */
export interface NullQueues extends SoftwareQueues {
  /** Bytes of a received packet. */
  readonly packetBytes: number;
  /** Packets are copied from, and to, memory of the device. */
  readonly copies: boolean;
  /** Nothing is received. */
  readonly isSilent: boolean;
}

export class NullDevice extends SoftwareDevice {
  readonly lcoreModule = new URL('./null-lcore.js', import.meta.url);
  readonly #macAddress: Uint8Array;
  readonly #options: Pick<NullQueues, 'packetBytes' | 'copies' | 'isSilent'>;
  #rssTypes = 0n;
  #rssKey: Uint8Array = hashKey;
  readonly #table = new Array<number>(REDIRECTION_TABLE_SIZE).fill(0);

  /** @throws VirtioError INVALID_ARGUMENT for arguments that it does not take */
  constructor(name: string, devargs: string, mostBytes: number) {
    super(name, devargs, MAX_QUEUES);
    const given = DeviceArguments.parse(devargs, ['size', 'copy', 'no-rx']);
    const packetBytes = given.number('size', PACKET_BYTES);
    if (packetBytes > mostBytes) {
      throw new VirtioError(ErrorCode.INVALID_ARGUMENT, `a buffer has no room for ${packetBytes} bytes`, {
        value: packetBytes,
        advice: `size is ${mostBytes} at most, or --mbuf-size larger`,
      });
    }
    if (given.number('no-rx', 0) > 1) throw new VirtioError(ErrorCode.INVALID_ARGUMENT, 'no-rx is 0 or 1');
    this.#options = { packetBytes, copies: given.number('copy', 0) !== 0, isSilent: given.number('no-rx', 0) === 1 };
    // Locally administered, and nobody's group.
    this.#macAddress = randomFillSync(new Uint8Array(6));
    this.#macAddress[0] = (this.#macAddress[0]! & 0xfe) | 2;
  }

  info(): DeviceInfo {
    return {
      ...unlimitedDevice,
      driverName: 'net_null',
      macAddress: this.#macAddress,
      maxRxQueues: MAX_QUEUES,
      maxTxQueues: MAX_QUEUES,
      rssTypes: RSS_TYPES,
      redirectionTableSize: REDIRECTION_TABLE_SIZE,
    };
  }

  override lcoreData(queues: LcoreQueues): NullQueues {
    return { ...super.lcoreData(queues), ...this.#options };
  }

  async setMtu(): Promise<void> {}

  async setMacAddress(address: Uint8Array): Promise<void> {
    this.#macAddress.set(address);
  }

  async setRss(types: bigint, key: Uint8Array | undefined): Promise<void> {
    if ((types & RSS_TYPES) !== 0n) this.#rssTypes = types & RSS_TYPES;
    if (key?.length === HASH_KEY_BYTES) this.#rssKey = key.slice();
  }

  async rss(): Promise<{ types: bigint; key: Uint8Array }> {
    return { types: this.#rssTypes, key: this.#rssKey };
  }

  async redirectionTable(): Promise<readonly number[]> {
    return [...this.#table];
  }

  async setRedirectionTable(entries: ReadonlyMap<number, number>): Promise<void> {
    for (const [index, queue] of entries) this.#table[index] = queue;
  }
}

export const nullMaker: DeviceMaker = {
  matches: (name) => name.startsWith('net_null'),
  make: async (name, devargs, { pool }) => new NullDevice(name, devargs, pool.dataBytes),
};
