/** `show port P macs` and `mcast_macs`. */

import type { TestPort } from '../test-port.js';
import { isZeroMac, macText } from './words.js';

const list = (addresses: readonly Uint8Array[]): string => addresses.map((each) => `  ${macText(each)}\n`).join('');

export function macAddresses({ macAddress, addedMacAddresses }: TestPort): string {
  const added = [macAddress, ...addedMacAddresses].filter((address) => !isZeroMac(address));
  return `Number of MAC address added: ${added.length}\n${list(added)}`;
}

export const multicastAddresses = ({ multicastAddresses: addresses }: TestPort): string =>
  `Number of Multicast MAC address added: ${addresses.length}\n${list(addresses)}`;
