/** A capture of several flows, for devices that choose the queue of a packet by its flow. */

import { PcapWriter } from '../../driver/pcap/pcap-writer.js';
import { pattern } from './capture-files.js';
import { address4, ipv4, udp } from './flow-packets.js';

/** Of each queue pair. */
const FLOWS_A_PAIR = 4;
const FIRST_PORT = 4000;
const [FROM, TO] = [address4('192.0.2.1'), address4('192.0.2.2')];
/** The "simple IMIX", and what of a frame is in front of the payload: Ethernet, IPv4 and UDP. */
const IMIX = [64, 594, 64, 64, 594, 64, 1518, 64, 594, 64, 64, 594] as const;
const HEADER_BYTES = 14 + 20 + 8;

/**
 * Writes datagrams of IMIX lengths, no two alike. Of `pairs` queue pairs that take turns each has flows of its own: a
 * device with automatic receive steering sends what comes back on the pair it was sent on (virtio 1.2 §5.1.6.5.6).
 */
export function writeFlowCapture(path: string, packets: number, pairs: number): void {
  const writer = PcapWriter.create(path);
  try {
    for (let number = 0; number < packets; number++) {
      const { protocol, bytes } = udp(FIRST_PORT + (number % (pairs * FLOWS_A_PAIR)), 9);
      const payload = pattern(IMIX[number % IMIX.length]! - HEADER_BYTES, number);
      new DataView(payload.buffer).setUint32(0, number);
      const packet = ipv4(FROM, TO, { protocol, bytes: [...bytes, ...payload] });
      writer.write(packet, BigInt(number));
    }
  } finally {
    writer.close();
  }
}
