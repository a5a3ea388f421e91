/** Commands that say which queue packets come to: what is hashed, with which key, and the redirection table. */

import { type Command, command } from '../console/grammar.js';
import { Errno, errnoText, type Result } from '../errno.js';
import { attempt } from '../ports/ethdev.js';
import { rssTypesOf } from '../reports/rss-types.js';
import type { Testpmd } from '../testpmd.js';
import { complainOfDevice } from './show-offloads.js';

/** The longest key, and the greatest table, that testpmd takes. */
const KEY_BYTES = 64;
const MAX_TABLE = 512;
/** Two bits that say which header of a tunnel is hashed (`RTE_ETH_RSS_LEVEL_MASK`). */
const LEVEL = 50n;
const levels: Readonly<Record<string, bigint>> = { 'level-default': 0n, 'level-outer': 1n, 'level-inner': 2n };

/** The types of a name or of a bit's number; undefined, with a complaint, for anything else. */
function typesOf({ output, settings }: Testpmd, name: string): bigint | undefined {
  const level = levels[name];
  if (level !== undefined) {
    settings.rssTypes = settings.rssTypes & ~(3n << LEVEL);
    return settings.rssTypes | (level << LEVEL);
  }
  if (/^\d/.test(name)) {
    const bit = Number.parseInt(name, 10);
    if (bit > 0 && bit < 64) return 1n << BigInt(bit);
    output.warn('flowtype_id should be greater than 0 and less than 64.');
    return undefined;
  }
  const types = rssTypesOf(name);
  if (types !== undefined && (types !== 0n || name === 'none')) return types;
  output.warn('Unknown parameter');
  return undefined;
}

async function setTypes(testpmd: Testpmd, name: string): Promise<void> {
  const { output, settings } = testpmd;
  const asked = name === 'default' ? undefined : typesOf(testpmd, name);
  if (asked === undefined && name !== 'default') return;
  let areAllSet = true;
  for (const { id, device } of testpmd.allPorts) {
    const able = device.info().rssTypes;
    const wanted = asked ?? able;
    const types = wanted & able;
    if (types !== wanted) {
      const change = `requested:${hash(wanted)} configured:${hash(types)}`;
      output.say(`Port ${id} modified RSS hash function based on hardware support,${change}`);
    }
    const result = await attempt(testpmd, device.setRss?.(types, undefined));
    if (result === 0) continue;
    areAllSet = false;
    output.warn(
      `Configuration of RSS hash at ethernet port ${id} failed with error (${result}): ${errnoText(result)}.`,
    );
  }
  if (!areAllSet || asked === undefined) return;
  settings.rssTypes = asked;
  output.say(`rss_hf ${hash(asked)}`);
}

/** As C's `%#x`: a zero has no prefix. */
const hash = (value: bigint): string => (value === 0n ? '0' : `0x${value.toString(16)}`);

async function setKey(testpmd: Testpmd, id: number, type: string, key: string): Promise<void> {
  const { output } = testpmd;
  const port = testpmd.ports.get(id);
  if (port === undefined) return complainOfDevice(testpmd, id);
  const { hashKeyBytes } = port.device.info();
  if (hashKeyBytes === 0 || hashKeyBytes > KEY_BYTES) {
    return output.warn('dev_info did not provide a valid hash key size');
  }
  if (key.length !== 2 * hashKeyBytes) {
    return output.warn(
      `key length: ${key.length} invalid - key must be a string of ${2 * hashKeyBytes} hexa-decimal numbers`,
    );
  }
  const odd = /[^0-9a-f]/i.exec(key)?.[0];
  if (odd !== undefined) return output.warn('invalid key: contain non-hexa digits');
  const result = await attempt(testpmd, port.device.setRss?.(rssTypesOf(type) ?? 0n, Buffer.from(key, 'hex')));
  if (result === Errno.ENOTSUP) output.warn('operation not supported by device');
  else if (result !== 0) output.warn(`operation failed - diag=-${result}`);
}

/** `(0,1)(1,0)`: entries and their queues; undefined, with a complaint, for an entry that the table has not. */
function entriesOf({ output }: Testpmd, text: string, size: number): ReadonlyMap<number, number> | undefined {
  const entries = new Map<number, number>();
  for (const [, inside = ''] of text.matchAll(/\(([^)]*)(?:\)|$)/g)) {
    const [, entry, queue] = /^\s*(\d+)\s*,\s*(\d+)\s*$/.exec(inside) ?? [];
    if (entry === undefined || queue === undefined || Number(entry) > 0xffff || Number(queue) > 0xffff)
      return undefined;
    if (Number(entry) >= size) {
      output.warn(`Invalid RETA hash index=${Number(entry)}`);
      return undefined;
    }
    entries.set(Number(entry), Number(queue));
  }
  return entries;
}

async function setTable(testpmd: Testpmd, id: number, list: string): Promise<void> {
  const { output } = testpmd;
  const port = testpmd.ports.get(id);
  if (port === undefined) return complainOfDevice(testpmd, id);
  const size = port.device.info().redirectionTableSize;
  if (size === 0) return output.warn('Redirection table size is 0 which is invalid for RSS');
  output.say(`The reta size of port ${id} is ${size}`);
  if (size > MAX_TABLE) {
    return output.warn(`Currently do not support more than ${MAX_TABLE} entries of redirection table`);
  }
  const entries = entriesOf(testpmd, list, size);
  if (entries === undefined) return output.warn('Invalid RSS Redirection Table config entered');
  const setting = (): Promise<Result> => attempt(testpmd, port.device.setRedirectionTable?.(entries));
  const result = entries.size === 0 ? Errno.EINVAL : await setting();
  if (result !== 0) output.warn(`Bad redirection table parameter, return code = -${result}`);
}

export const setRssCommands: readonly Command[] = [
  command('port config all rss {types:word}', 'what RSS hashes: ip, tcp, udp, none, default', (testpmd, { types }) =>
    setTypes(testpmd, types),
  ),
  command(
    'port config {port:u16} rss-hash-key {type:word} {key:word}',
    'the key that a type is hashed with, in hexadecimal',
    (testpmd, { port, type, key }) => setKey(testpmd, port, type, key),
  ),
  command(
    'port config {port:u16} rss reta {entries:word}',
    'which queue an entry of the table leads to: (0,1)(1,0)',
    (testpmd, { port, entries }) => setTable(testpmd, port, entries),
  ),
];
