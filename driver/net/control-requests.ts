/** Data of the commands that a port sends in its control queue (virtio 1.2 §5.1.6.5). */

import {
  RSS_TABLE_ENTRY_BYTES,
  virtioNetCtrlCoal,
  virtioNetCtrlCoalVq,
  virtioNetCtrlGuestOffloads,
  virtioNetCtrlMac,
  virtioNetCtrlVlan,
  virtioNetHashConfig,
  virtioNetRssConfigHead,
  virtioNetRssConfigTail,
} from '../spec/control.js';
import { MAC_BYTES } from '../spec/net-config.js';

export const isGroup = (address: Uint8Array): boolean => (address[0]! & 1) !== 0;

/** Which packets are hashed, and how. */
export interface HashSettings {
  /** What the hash is computed with, 40 bytes for every type. */
  readonly key: Uint8Array;
  /** Mask of `HashType`. */
  readonly hashTypes: number;
}

/** How packets find their receive queue. */
export interface RssSettings extends HashSettings {
  /** Receive queues, by number of their pair: the hash, masked, chooses an entry. A power of two of them. */
  readonly table: readonly number[];
  /** Where packets without a hash go. Default 0. */
  readonly unclassifiedQueue?: number | undefined;
}

/** When the device tells of used buffers: after so many packets, or so long after the first of them; 0 both, at once. */
export interface CoalescingSettings {
  readonly maxPackets: number;
  readonly maxMicroseconds: number;
}

const made = (bytes: number, write: (view: DataView) => void): Uint8Array => {
  const data = new Uint8Array(bytes);
  write(new DataView(data.buffer));
  return data;
};

export const switchData = (isOn: boolean): Uint8Array => Uint8Array.of(isOn ? 1 : 0);

/** Two tables, one behind the other, each with its length in front. */
export function macTablesData(addresses: readonly Uint8Array[]): Uint8Array {
  const tables = [addresses.filter((address) => !isGroup(address)), addresses.filter(isGroup)];
  return made(2 * virtioNetCtrlMac.bytes + addresses.length * MAC_BYTES, (view) => {
    let at = 0;
    for (const table of tables) {
      virtioNetCtrlMac.write(view, { entries: table.length }, at);
      at += virtioNetCtrlMac.bytes;
      for (const address of table) {
        new Uint8Array(view.buffer).set(address, at);
        at += MAC_BYTES;
      }
    }
  });
}

export const vlanData = (identifier: number): Uint8Array =>
  made(virtioNetCtrlVlan.bytes, (view) => virtioNetCtrlVlan.write(view, { vlan_id: identifier }));

/** @param pairs transmit queues in use */
export function rssData({ key, hashTypes, table, unclassifiedQueue = 0 }: RssSettings, pairs: number): Uint8Array {
  const tailAt = virtioNetRssConfigHead.bytes + table.length * RSS_TABLE_ENTRY_BYTES;
  return made(tailAt + virtioNetRssConfigTail.bytes + key.length, (view) => {
    virtioNetRssConfigHead.write(view, {
      hash_types: hashTypes,
      indirection_table_mask: table.length - 1,
      unclassified_queue: unclassifiedQueue,
    });
    for (const [entry, queue] of table.entries()) {
      view.setUint16(virtioNetRssConfigHead.bytes + entry * RSS_TABLE_ENTRY_BYTES, queue, true);
    }
    virtioNetRssConfigTail.write(view, { max_tx_vq: pairs, hash_key_length: key.length }, tailAt);
    new Uint8Array(view.buffer).set(key, tailAt + virtioNetRssConfigTail.bytes);
  });
}

export const hashData = ({ key, hashTypes }: HashSettings): Uint8Array =>
  made(virtioNetHashConfig.bytes + key.length, (view) => {
    virtioNetHashConfig.write(view, { hash_types: hashTypes, hash_key_length: key.length });
    new Uint8Array(view.buffer).set(key, virtioNetHashConfig.bytes);
  });

export const offloadsData = (offloads: bigint): Uint8Array =>
  made(virtioNetCtrlGuestOffloads.bytes, (view) => virtioNetCtrlGuestOffloads.write(view, { offloads }));

const coalescingFields = ({ maxPackets, maxMicroseconds }: CoalescingSettings) => ({
  max_packets: maxPackets,
  max_usecs: maxMicroseconds,
});

export const coalescingData = (settings: CoalescingSettings): Uint8Array =>
  made(virtioNetCtrlCoal.bytes, (view) => virtioNetCtrlCoal.write(view, coalescingFields(settings)));

export const queueCoalescingData = (queue: number, settings: CoalescingSettings): Uint8Array =>
  made(virtioNetCtrlCoalVq.bytes, (view) =>
    virtioNetCtrlCoalVq.write(view, { vq_index: queue, reserved: 0, ...coalescingFields(settings) }),
  );

/** What VQ_GET is asked with: the queue alone. */
export const queueData = (queue: number): Uint8Array =>
  queueCoalescingData(queue, { maxPackets: 0, maxMicroseconds: 0 }).slice(0, 4);

/** Reads the answer to VQ_GET. */
export function readCoalescing(result: Uint8Array): CoalescingSettings {
  const view = new DataView(result.buffer, result.byteOffset, result.byteLength);
  const { max_packets: maxPackets, max_usecs: maxMicroseconds } = virtioNetCtrlCoal.read(view);
  return { maxPackets, maxMicroseconds };
}
