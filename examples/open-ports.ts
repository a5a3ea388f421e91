/** Opens the ports of an application that sends on one of them what it received on another. */

import { type OpenPortOptions, openPort, type Port, parsePciAddress } from 'virtio-pmd';

const RING_SIZE = 256;

/**
 * Opens a port at each address, in their order; closing what this returns closes them all.
 *
 * Packets go from port to port without being copied, so all ports share one pool: that of the port which is opened first, and
 * closed last. Its ring is asked for as many times longer as there are ports, which makes its pool large enough.
 */
export async function openPorts(addresses: readonly string[], options: OpenPortOptions = {}) {
  const opened: Port[] = [];
  const ports = new Array<Port>(addresses.length);
  const close = async (): Promise<void> => {
    for (const port of opened.reverse()) await port.close();
  };
  try {
    for (const place of pciFirst(addresses)) {
      const ringSize = opened.length > 0 ? RING_SIZE : RING_SIZE * 2 ** Math.ceil(Math.log2(addresses.length));
      const port = await openPort(addresses[place]!, { ringSize, ...options, pool: opened[0]?.pool });
      opened.push(port);
      ports[place] = port;
    }
  } catch (error) {
    await close();
    throw error;
  }
  return Object.assign(ports, { [Symbol.asyncDispose]: close });
}

/** Places in the list, those of PCI devices first: they may need a pool at physical addresses, others take any. */
function pciFirst(addresses: readonly string[]): number[] {
  const isPci = addresses.map((address) => parsePciAddress(address) !== undefined);
  return [...isPci.keys()].sort((one, other) => Number(isPci[other]) - Number(isPci[one]));
}
