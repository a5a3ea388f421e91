/** What is known of received packets, and is not for their next receiver; and what is to be done when they are sent. */

import { type Burst, PacketField, PacketFlag, type PacketPool } from '../../../../thread.js';
import { type ForwardSettings, portSettings, TxOffload } from '../forward-settings.js';
import type { StreamSetup } from '../stream.js';

const { FLAGS, VLAN_AND_PORT, WORDS_SHIFT } = PacketField;
/** What a receive queue found; a tag that it took out is gone, as in testpmd. Work that packets leave goes with them. */
const FOUND = PacketFlag.VLAN | PacketFlag.HASH | PacketFlag.CHECKSUM_VALID | PacketFlag.COALESCED;
const HIGH_HALF = 0xffff_0000;

export type TransmitMarker = (burst: Burst) => void;

const nothing: TransmitMarker = () => undefined;

/** Has packets of a stream get the tag of `tx_vlan set`, where the port inserts tags, and keep none that was found. */
export function transmitMarker(pool: PacketPool, settings: ForwardSettings, setup: StreamSetup): TransmitMarker {
  const { txOffloads, txVlan } = portSettings(settings, setup.txPort);
  if ((txOffloads & TxOffload.VLAN_INSERT) !== 0n) return (burst) => setMarks(pool, burst, PacketFlag.VLAN, txVlan);
  return portSettings(settings, setup.rxPort).rxOffloads === 0n ? nothing : (burst) => setMarks(pool, burst, 0, 0);
}

function setMarks({ fields }: PacketPool, { handles, count }: Burst, flag: number, tag: number): void {
  for (let index = 0; index < count; index++) {
    const field = handles[index]! << WORDS_SHIFT;
    fields[field + FLAGS] = (fields[field + FLAGS]! & ~FOUND) | flag;
    if (flag !== 0) fields[field + VLAN_AND_PORT] = (fields[field + VLAN_AND_PORT]! & HIGH_HALF) | tag;
  }
}
