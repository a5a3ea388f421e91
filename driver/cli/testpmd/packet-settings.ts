/** What options and commands set for the packets that are forwarded, with testpmd's checks of it. */

import { type ForwardMode, forwardModes } from './lcore/forward-settings.js';
import type { Output } from './output.js';
import { MAX_BURST, MAX_SEGMENTS } from './settings.js';
import type { Testpmd } from './testpmd.js';

/** An Ethernet, an IPv4 and a UDP header: the least that txonly makes. */
const MIN_PACKET = 14 + 20 + 8;

const isMode = (name: string): name is ForwardMode => forwardModes.some((mode) => mode === name);

export function setForwardMode({ output, settings }: Testpmd, mode: string): void {
  if (!isMode(mode)) {
    output.warn(`Invalid ${mode} packet forwarding mode`);
    return;
  }
  settings.forwardMode = mode;
  output.say(`Set ${mode} packet forwarding mode${settings.retry ? ' with retry' : ''}`);
}

export function setBurst({ output, settings }: Testpmd, packets: number): void {
  // testpmd takes it here, and forwards nothing then; its option and `port config all burst` refuse it.
  if (packets === 0) {
    output.warn(`burst must be between 1 and ${MAX_BURST}`);
    return;
  }
  if (packets > MAX_BURST) {
    output.warn(`nb pkt per burst: ${packets} > ${MAX_BURST} (maximum packet per burst)  ignored`);
    return;
  }
  settings.burst = packets;
  output.say(`Number of packets per burst set to ${packets}`);
}

/** Lengths of the segments of packets that txonly makes. */
export function setTxSegments(testpmd: Testpmd, lengths: readonly number[]): void {
  const { output, settings, pool } = testpmd;
  if (lengths.length > 1 && isMoreThanARing(testpmd, lengths.length)) {
    output.warn(`Tx segment size(${lengths.length}) is not supported - txpkts ignored`);
    return;
  }
  if (lengths.length > MAX_SEGMENTS) {
    output.warn(`Tx segment size(${lengths.length}) is bigger than max number of segment(${MAX_SEGMENTS})`);
    return;
  }
  // testpmd reckons with the headroom, too, and would send what is behind the buffer.
  const room = Math.min(settings.mbufSizes[0] ?? 0, pool.dataBytes);
  for (const [at, length] of lengths.entries()) {
    if (length > room) {
      output.warn(`length[${at}]=${length} > mbuf_data_size=${room} - give up`);
      return;
    }
  }
  const total = lengths.reduce((sum, length) => sum + length, 0) & 0xffff;
  if (total < MIN_PACKET) {
    output.warn(`total packet length=${total} < ${MIN_PACKET} - give up`);
    return;
  }
  settings.txSegments = lengths;
}

/** Segments that a received packet may be cut into (`MAX_SEGS_BUFFER_SPLIT`). */
export const MAX_SPLIT = 8;

export function setRxOffsets({ output, settings }: Testpmd, offsets: readonly number[]): void {
  if (isSplitTooFine(output, offsets.length)) return;
  const [at, far] = [...offsets.entries()].find(([, offset]) => offset >= 0xffff) ?? [];
  if (at !== undefined) {
    output.say(`offset[${at}]=${far} > UINT16_MAX - give up`);
    return;
  }
  settings.rxOffsets = offsets;
}

export function setRxSegments({ output, settings }: Testpmd, lengths: readonly number[]): void {
  if (isSplitTooFine(output, lengths.length)) return;
  const [at, long] = [...lengths.entries()].find(([, length]) => length >= 0xffff) ?? [];
  if (at !== undefined) {
    output.say(`length[${at}]=${long} > UINT16_MAX - give up`);
    return;
  }
  settings.rxSegments = lengths;
}

/** Headers that packets are to be cut behind; the payload is one segment more. */
export function setRxHeaders({ output, settings }: Testpmd, list: string): boolean {
  const headers = list.split(',').filter((header) => header !== '');
  for (const header of headers) if (!RX_HEADERS.has(header)) output.warn(`Unsupported protocol: ${header}`);
  if (headers.length === 0) return false;
  if (headers.length + 1 > MAX_SPLIT) {
    output.say(`nb segments per RX packets=${headers.length + 1} > MAX_SEGS_BUFFER_SPLIT - ignored`);
    return true;
  }
  settings.rxHeaders = headers;
  settings.rxSegments = Array.from({ length: headers.length + 1 }, (_, at) => settings.rxSegments[at] ?? 0);
  return true;
}

const LAYERS = [
  'eth',
  'ipv4',
  'ipv6',
  ...['ipv4', 'ipv6'].flatMap((ip) => ['tcp', 'udp', 'sctp'].map((l4) => `${ip}-${l4}`)),
];
const RX_HEADERS: ReadonlySet<string> = new Set([...LAYERS, 'grenat', ...LAYERS.map((layer) => `inner-${layer}`)]);

function isSplitTooFine(output: Output, segments: number): boolean {
  if (segments < MAX_SPLIT) return false;
  output.say(`nb segments per RX packets=${segments} >= MAX_SEGS_BUFFER_SPLIT - ignored`);
  return true;
}

/** Whether a ring has fewer entries than a packet has segments; says so of the first one. */
function isMoreThanARing({ output, allPorts, settings }: Testpmd, segments: number): boolean {
  for (const { txQueues, configured } of allPorts) {
    if (configured === undefined) continue;
    for (const [queue, { descriptors }] of txQueues.slice(0, settings.txQueues).entries()) {
      if (descriptors === 0 || descriptors >= segments) continue;
      output.say(
        `nb segments per TX packets=${segments} >= TX queue(${queue}) ring_size=${descriptors} - txpkts ignored`,
      );
      return true;
    }
  }
  return false;
}
