/** `show device info`: a device, and the ports that are on it. */

import type { TestPort } from '../test-port.js';
import { macText } from './words.js';

const BORDER = '*'.repeat(21);
const PCI_ADDRESS = /^[\da-f]{4}:[\da-f]{2}:[\da-f]{2}\.\d$/i;
/** Drivers that leave it to EAL on which socket their device is: it says `SOCKET_ID_ANY`. */
const ON_ANY_SOCKET: ReadonlySet<string> = new Set(['net_virtio_user', 'net_pcap', 'net_tap', 'net_ring']);

export function deviceInfo({ id, device, macAddress }: TestPort): string {
  const { driverName, speeds } = device.info();
  const bus = PCI_ADDRESS.test(device.name) ? 'pci' : 'vdev';
  return [
    '',
    `${BORDER} Infos for device ${device.name} ${BORDER}`,
    `Bus name: ${bus}`,
    'Bus information: ',
    `Driver name: ${driverName}`,
    `Devargs: ${device.devargs}`,
    `Connect to socket: ${ON_ANY_SOCKET.has(driverName) ? -1 : 0}`,
    '',
    `\tPort id: ${String(id).padEnd(2)}`,
    `\tMAC address: ${macText(macAddress)}`,
    `\tDevice name: ${device.name}`,
    `\tDevice speed capability:${speeds?.map((speed) => ` ${speed}  `).join('') ?? ' Autonegotiate (all speeds)'}`,
    '',
  ].join('\n');
}
