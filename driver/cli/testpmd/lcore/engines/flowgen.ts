/** Mode flowgen: frees what comes, and sends UDP packets of many flows, each to a destination address of its own. */

import { PacketField, PacketFlag } from '../../../../thread.js';
import { portSettings, TxOffload } from '../forward-settings.js';
import type { EngineMaker } from './engine-maker.js';
import { UdpHeaders } from './udp-headers.js';

const { FLAGS, DATA_OFFSET, SEGMENT_LENGTH, PACKET_LENGTH, VLAN_AND_PORT, WORDS_SHIFT } = PacketField;
/** testpmd counts the frame check sequence in the length of `set txpkts` here, and only here. */
const CHECK_SEQUENCE_BYTES = 4;
const FIRST_DESTINATION = 0x0afd_0000;
const flow = {
  destination: Uint8Array.of(0, 1, 2, 3, 4, 1),
  source: Uint8Array.of(0, 1, 2, 3, 4, 0),
  sourceAddress: 0x0afe_0000,
  destinationAddress: FIRST_DESTINATION,
  sourcePort: 1000,
  destinationPort: 1001,
};

/** The streams of a thread take turns. */
let nextFlow = 0;

export const flowgenEngine: EngineMaker = ({ burst, setup }, traffic, { pool, settings }) => {
  const { fields, offset, bufferBytes, headroom, dataBytes } = pool;
  const { segmentBytes, flowgenFlows } = settings;
  const { txOffloads, txVlan } = portSettings(settings, setup.txPort);
  const flags = (txOffloads & TxOffload.VLAN_INSERT) === 0n ? 0 : PacketFlag.VLAN;
  // One buffer a packet: of more segments than fit, what fits.
  const bytes = Math.min(segmentBytes.reduce((sum, length) => sum + length, 0) - CHECK_SEQUENCE_BYTES, dataBytes);
  const mostClones = Math.min(settings.flowgenClones, burst.capacity);
  const headers = new UdpHeaders(flow, bytes);

  /** Makes one packet with the headers as they are, into place `index` of the burst; false without a buffer. */
  const make = (index: number): boolean => {
    if (!pool.take(burst.handles, index, 1)) return false;
    const handle = burst.handles[index]!;
    const field = handle << WORDS_SHIFT;
    fields[field + DATA_OFFSET] = headroom;
    fields[field + SEGMENT_LENGTH] = bytes;
    fields[field + PACKET_LENGTH] = bytes;
    fields[field + FLAGS] = flags;
    fields[field + VLAN_AND_PORT] = txVlan;
    headers.writeTo(pool, offset + Math.imul(handle, bufferBytes) + headroom);
    return true;
  };

  return {
    forward() {
      traffic.receive();
      burst.free();
      let clones = 0;
      for (; burst.count < burst.capacity; burst.count++) {
        if (burst.count === 0 || clones === 0) {
          clones = mostClones;
          headers.setDestinationAddress(FIRST_DESTINATION + nextFlow);
        } else {
          clones -= 1;
        }
        if (!make(burst.count)) break;
        nextFlow = nextFlow + 1 < flowgenFlows ? nextFlow + 1 : 0;
      }
      const made = burst.count;
      const sent = traffic.send();
      // The flows of what was dropped come again.
      for (nextFlow -= made - sent; nextFlow < 0; nextFlow += flowgenFlows);
      return sent;
    },
  };
};
