/** Commands about which receiveq packets go to, and what hash is reported (virtio 1.2 §5.1.6.5.6.4, §5.1.6.5.7). */

import {
  RSS_TABLE_ENTRY_BYTES,
  virtioNetCtrlHdr,
  virtioNetHashConfig,
  virtioNetRssConfigHead,
  virtioNetRssConfigTail,
} from '../spec/control.js';
import { isPowerOfTwo } from '../units.js';
import type { ControlCommand } from './control-command.js';
import { HASH_TYPES } from './packet-hash.js';
import { STEERING_TABLE_MOST, type SteeringTable } from './receive-steering.js';
import { TOEPLITZ_KEY_BYTES } from './toeplitz-hash.js';

/** What a good RSS_CONFIG says. */
export interface RssConfig extends SteeringTable {
  /** Pairs that packets are sent and received on. */
  readonly pairs: number;
}

/** Reads RSS_CONFIG; undefined where it is not as long as it says, or says what a device of so many pairs cannot do. */
export function readRssConfig(command: ControlCommand, queuePairs: number): RssConfig | undefined {
  const view = viewOf(command);
  const headAt = virtioNetCtrlHdr.bytes;
  const tableAt = headAt + virtioNetRssConfigHead.bytes;
  if (command.bytes < tableAt || !command.read(headAt, virtioNetRssConfigHead.bytes, 0)) return undefined;
  const head = virtioNetRssConfigHead.read(view);
  // As 16 bits are read: 65536 at most.
  const entries = head.indirection_table_mask + 1;
  if (!isPowerOfTwo(entries) || entries > STEERING_TABLE_MOST) return undefined;
  const tableBytes = entries * RSS_TABLE_ENTRY_BYTES;
  const tailAt = tableAt + tableBytes;
  const keyAt = tailAt + virtioNetRssConfigTail.bytes;
  if (command.bytes < keyAt || !command.read(tableAt, keyAt - tableAt, 0)) return undefined;
  const table = Array.from({ length: entries }, (_, entry) => view.getUint16(entry * RSS_TABLE_ENTRY_BYTES, true));
  const tail = virtioNetRssConfigTail.read(view, tableBytes);
  const key = readKey(command, keyAt, tail.hash_key_length);
  if (key === undefined || (head.hash_types & ~HASH_TYPES) !== 0) return undefined;
  // Row 60: an entry is the number of a receiveq there is. Its highest bit is reserved.
  const unclassified = head.unclassified_queue;
  const highest = table.reduce((most, queue) => Math.max(most, queue), unclassified);
  if (highest >= queuePairs || tail.max_tx_vq < 1 || tail.max_tx_vq > queuePairs) return undefined;
  return { hashTypes: head.hash_types, table, unclassified, key, pairs: Math.max(highest + 1, tail.max_tx_vq) };
}

/** Reads HASH_CONFIG; undefined where it is not as long as it says, or says what the device cannot do. */
export function readHashConfig(command: ControlCommand): Pick<SteeringTable, 'hashTypes' | 'key'> | undefined {
  const at = virtioNetCtrlHdr.bytes;
  const keyAt = at + virtioNetHashConfig.bytes;
  if (command.bytes < keyAt || !command.read(at, virtioNetHashConfig.bytes, 0)) return undefined;
  const { hash_types: hashTypes, hash_key_length: keyBytes } = virtioNetHashConfig.read(viewOf(command));
  const key = readKey(command, keyAt, keyBytes);
  if (key === undefined || (hashTypes & ~HASH_TYPES) !== 0) return undefined;
  return { hashTypes, key };
}

/** Reads the key with which a command ends; undefined where that is not its end, or the key is longer than `rss_max_key_size`. */
function readKey(command: ControlCommand, at: number, length: number): Uint8Array | undefined {
  if (length > TOEPLITZ_KEY_BYTES || command.bytes !== at + length) return undefined;
  if (length > 0 && !command.read(at, length, 0)) return undefined;
  return command.scratch.slice(0, length);
}

const viewOf = ({ scratch }: ControlCommand): DataView =>
  new DataView(scratch.buffer, scratch.byteOffset, scratch.byteLength);
