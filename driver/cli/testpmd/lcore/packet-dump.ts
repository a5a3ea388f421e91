/** What `set verbose` shows of each packet. */

import {
  type Burst,
  EthernetHeader,
  PacketBytes,
  PacketField,
  PacketFlag,
  type PacketPool,
  TcpHeader,
} from '../../../thread.js';
import { hex4, macText } from './engines/packet-text.js';
import type { QueueObserver } from './observed-queue.js';
import { receiveFlagNames } from './packet-flag-names.js';
import { packetTypeText } from './packet-type.js';

const { FLAGS, VLAN_AND_PORT, HASH, CHECKSUM, WORDS_SHIFT } = PacketField;
const LOW_HALF = 0xffff;

export class PacketDump implements QueueObserver {
  readonly #pool: PacketPool;
  readonly #packet: PacketBytes;
  readonly #port: number;
  readonly #print: (text: string) => void;

  constructor(pool: PacketPool, port: number, print: (text: string) => void) {
    this.#pool = pool;
    this.#packet = new PacketBytes(pool);
    this.#port = port;
    this.#print = print;
  }

  received(burst: Burst, start: number, queue: number, stampsUs?: Float64Array): void {
    this.#show(burst, start, `port ${this.#port}/queue ${queue}: received`, (handle, place) =>
      this.#receivedText(handle, queue, stampsUs?.[place]),
    );
  }

  sending(burst: Burst, queue: number): void {
    this.#show(burst, 0, `port ${this.#port}/queue ${queue}: sent`, (handle) => this.#sentText(handle, queue));
  }

  #show(burst: Burst, start: number, title: string, textOf: (handle: number, place: number) => string): void {
    let text = `${title} ${burst.count - start} packets\n`;
    for (let index = start; index < burst.count; index++) text += textOf(burst.handles[index]!, index - start);
    this.#print(text);
  }

  #receivedText(handle: number, queue: number, stampUs: number | undefined): string {
    const { fields } = this.#pool;
    const field = handle << WORDS_SHIFT;
    const flags = fields[field + FLAGS]! & LOW_HALF;
    let known = '';
    if ((flags & PacketFlag.HASH) !== 0) {
      known += ` - RSS hash=0x${fields[field + HASH]!.toString(16)} - RSS queue=0x${queue.toString(16)}`;
    }
    if (stampUs !== undefined) known += ` - timestamp ${Math.floor(stampUs)} `;
    if ((flags & PacketFlag.VLAN) !== 0) {
      known += ` - VLAN tci=0x${(fields[field + VLAN_AND_PORT]! & LOW_HALF).toString(16)}`;
    }
    return this.#text(handle, known, `Receive queue=0x${queue.toString(16)}`, receiveFlagNames(flags));
  }

  #sentText(handle: number, queue: number): string {
    return this.#text(handle, '', `Send queue=0x${queue.toString(16)}`, this.#sendFlagNames(handle));
  }

  #text(handle: number, known: string, queue: string, flags: string): string {
    const packet = this.#packet.move(handle);
    const isEthernet = packet.length >= EthernetHeader.BYTES;
    const source = isEthernet ? macText(packet, EthernetHeader.SOURCE) : '';
    const destination = isEthernet ? macText(packet, EthernetHeader.DESTINATION) : '';
    const type = isEthernet ? packet.u16(EthernetHeader.TYPE) : 0;
    return (
      `  src=${source} - dst=${destination} - pool=mb_pool_0 - type=0x${hex4(type)} - length=${packet.length} ` +
      `- nb_segs=${this.#pool.segments(handle)}${known}${packetTypeText(packet)} - ${queue}\n  ol_flags: ${flags}\n`
    );
  }

  /** What a packet asks of the port that sends it. */
  #sendFlagNames(handle: number): string {
    const { fields } = this.#pool;
    const field = handle << WORDS_SHIFT;
    const has = (flag: number): boolean => (fields[field + FLAGS]! & flag) !== 0;
    const isTcp = fields[field + CHECKSUM]! >>> 16 === TcpHeader.CHECKSUM;
    const l4 = has(PacketFlag.NEEDS_CHECKSUM) ? (isTcp ? 'TCP_CKSUM' : 'UDP_CKSUM') : 'L4_NO_CKSUM';
    const names = [
      has(PacketFlag.VLAN) && 'VLAN',
      l4,
      has(PacketFlag.SEGMENT_TCP4 | PacketFlag.SEGMENT_TCP6) && 'TCP_SEG',
    ];
    return names
      .filter((name) => name !== false)
      .map((name) => `RTE_MBUF_F_TX_${name} `)
      .join('');
  }
}
