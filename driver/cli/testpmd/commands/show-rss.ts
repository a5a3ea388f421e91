/** `show port P rss-hash` and `show port P rss reta`. */

import { type Command, command } from '../console/grammar.js';
import { Errno, errnoOf } from '../errno.js';
import { redirectionTable, rssHash, tableGroups, tableMasks } from '../reports/rss.js';
import type { TestPort } from '../test-port.js';
import type { Testpmd } from '../testpmd.js';
import { answer } from './answer.js';
import { complainOfDevice } from './show-offloads.js';

/** Longest key that testpmd has room for (`RSS_HASH_KEY_LENGTH`). */
const KEY_BYTES_MAX = 64;
/** Greatest table that it asks for. */
const TABLE_MAX = 512;

async function showHash(testpmd: Testpmd, id: number, showsKey: boolean): Promise<void> {
  const { output } = testpmd;
  const port = testpmd.portOf(id);
  if (port === undefined) return;
  const { hashKeyBytes } = port.device.info();
  if (hashKeyBytes === 0 || hashKeyBytes > KEY_BYTES_MAX) {
    return output.warn('dev_info did not provide a valid hash key size');
  }
  if (port.device.rss === undefined) return output.warn('operation not supported by device');
  try {
    const rss = await port.device.rss();
    answer(testpmd, 'rss-hash', { port: id, types: rss.types, key: rss.key }, () => rssHash(rss, showsKey));
  } catch (error) {
    output.warn(`operation failed - diag=${-errnoOf(error)}`);
  }
}

async function showTable(testpmd: Testpmd, id: number, size: number, list: string): Promise<void> {
  const { output } = testpmd;
  const port = testpmd.ports.get(id);
  if (port === undefined) return complainOfDevice(testpmd, id);
  const most = Math.min(port.device.info().redirectionTableSize, TABLE_MAX);
  if (size === 0 || size > most) return output.warn(`Invalid redirection table size: ${size} (1-${most})`);
  const masks = tableMasks(list);
  const groups = tableGroups(size);
  if (masks?.length !== groups) {
    if (masks !== undefined) output.warn(`The bits of masks do not match the number of reta entries: ${groups}`);
    return output.warn(`Invalid string: ${list} for reta masks`);
  }
  const table = await tableOf(port, size);
  if (typeof table === 'number') output.warn(`Failed to get RSS RETA info, return code = ${-table}`);
  else answer(testpmd, 'rss-redirection-table', { port: id, table }, () => redirectionTable(table, masks));
}

/** The table, or the errno that stands in its way: drivers give it whole or not at all. */
async function tableOf({ device }: TestPort, size: number): Promise<readonly number[] | Errno> {
  if (device.redirectionTable === undefined) return Errno.ENOTSUP;
  try {
    const table = await device.redirectionTable();
    return table.length === size ? table : Errno.EINVAL;
  } catch (error) {
    return errnoOf(error);
  }
}

export const showRssCommands: readonly Command[] = [
  command('show port {port:u16} rss-hash', 'what RSS hashes', (testpmd, { port }) => showHash(testpmd, port, false)),
  command('show port {port:u16} rss-hash key', 'what RSS hashes, and its key', (testpmd, { port }) =>
    showHash(testpmd, port, true),
  ),
  command(
    'show port {port:u16} rss reta {size:u16} {masks:word}',
    'which queue each entry of the redirection table has',
    (testpmd, { port, size, masks }) => showTable(testpmd, port, size, masks),
  ),
];
