/** What commands ask of a port's device, with the checks and answers of DPDK's ethdev: 0, or an errno. */

import { Errno, errnoOf, errnoText, type Result } from '../errno.js';
import { isZeroMac } from '../reports/words.js';
import type { TestPort } from '../test-port.js';
import type { Testpmd } from '../testpmd.js';

/** Runs what a device may be able to do; one that cannot answers ENOTSUP. */
export async function attempt(testpmd: Testpmd, doing: Promise<unknown> | undefined): Promise<Result> {
  if (doing === undefined) return Errno.ENOTSUP;
  try {
    await doing;
    return 0;
  } catch (error) {
    testpmd.log(error);
    return errnoOf(error);
  }
}

/** Has something done with a port of this number; where there is none, ethdev says so in its log. */
export async function withPort(
  testpmd: Testpmd,
  id: number,
  action: (port: TestPort) => Promise<Result>,
): Promise<Result> {
  const port = testpmd.ports.get(id);
  if (port !== undefined) return action(port);
  testpmd.output.warn(`Invalid port_id=${id}`);
  return Errno.ENODEV;
}

const modes = {
  promiscuous: (port: TestPort, on: boolean) => port.device.setPromiscuous?.(on),
  allMulticast: (port: TestPort, on: boolean) => port.device.setAllMulticast?.(on),
} as const;

export const setMode = (testpmd: Testpmd, id: number, mode: keyof typeof modes, on: boolean): Promise<Result> =>
  withPort(testpmd, id, async (port) => {
    if (port[mode] === on) return 0;
    const result = await attempt(testpmd, modes[mode](port, on));
    if (result === 0) port[mode] = on;
    return result;
  });

/** Promiscuous, as testpmd has every port at first. */
export async function setPromiscuousAtFirst(testpmd: Testpmd, id: number): Promise<void> {
  const result = await setMode(testpmd, id, 'promiscuous', true);
  if (result === 0) return;
  const reason = errnoText(result);
  testpmd.output.warn(`Error during enabling promiscuous mode for port ${id}: ${reason} - ignore`);
}

export const setLink = (testpmd: Testpmd, id: number, up: boolean): Promise<Result> =>
  withPort(testpmd, id, ({ device }) => attempt(testpmd, device.setLink?.(up)));

const isSame = (one: Uint8Array, other: Uint8Array): boolean => one.every((octet, at) => octet === other[at]);
const isMulticast = (address: Uint8Array): boolean => ((address[0] ?? 0) & 1) === 1;

export const addMacAddress = (testpmd: Testpmd, id: number, address: Uint8Array): Promise<Result> =>
  withPort(testpmd, id, async (port) => {
    const { device, addedMacAddresses: added } = port;
    if (device.addMacAddress === undefined) return Errno.ENOTSUP;
    if (isZeroMac(address)) {
      testpmd.output.warn(`Port ${id}: Cannot add NULL MAC address`);
      return Errno.EINVAL;
    }
    if ([port.macAddress, ...added].some((known) => isSame(known, address))) return 0;
    if (added.length + 1 >= device.info().maxMacAddresses) {
      testpmd.output.warn(`Port ${id}: MAC address array full`);
      return Errno.ENOSPC;
    }
    const result = await attempt(testpmd, device.addMacAddress(address));
    if (result === 0) added.push(address);
    return result;
  });

export const removeMacAddress = (testpmd: Testpmd, id: number, address: Uint8Array): Promise<Result> =>
  withPort(testpmd, id, async (port) => {
    if (port.device.removeMacAddress === undefined) return Errno.ENOTSUP;
    if (isSame(port.macAddress, address)) {
      testpmd.output.warn(`Port ${id}: Cannot remove default MAC address`);
      return Errno.EADDRINUSE;
    }
    if (!port.addedMacAddresses.some((known) => isSame(known, address))) return 0;
    const result = await attempt(testpmd, port.device.removeMacAddress(address));
    if (result === 0) port.addedMacAddresses = port.addedMacAddresses.filter((known) => !isSame(known, address));
    return result;
  });

export const setMacAddress = (testpmd: Testpmd, id: number, address: Uint8Array): Promise<Result> =>
  withPort(testpmd, id, async (port) => {
    if (isZeroMac(address) || isMulticast(address)) return Errno.EINVAL;
    const result = await attempt(testpmd, port.device.setMacAddress?.(address));
    if (result === 0) port.macAddress = address;
    return result;
  });

/** Gives the device the whole list; what it refuses leaves the old one, and is said. */
async function setMulticastAddresses(testpmd: Testpmd, port: TestPort, addresses: Uint8Array[]): Promise<void> {
  const result = await attempt(testpmd, port.device.setMulticastAddresses?.(addresses));
  if (result === 0) port.multicastAddresses = addresses;
  else {
    const call = `rte_eth_dev_set_mc_addr_list(port=${port.id}, nb=${addresses.length})`;
    testpmd.output.warn(`${call} failed. diag=-${result}`);
  }
}

export async function addMulticastAddress(testpmd: Testpmd, id: number, address: Uint8Array): Promise<void> {
  const port = testpmd.portOf(id);
  if (port === undefined) return;
  if (port.multicastAddresses.some((known) => isSame(known, address))) {
    return testpmd.output.warn('multicast address already filtered by port');
  }
  await setMulticastAddresses(testpmd, port, [...port.multicastAddresses, address]);
}

export async function removeMulticastAddress(testpmd: Testpmd, id: number, address: Uint8Array): Promise<void> {
  const port = testpmd.portOf(id);
  if (port === undefined) return;
  const rest = port.multicastAddresses.filter((known) => !isSame(known, address));
  if (rest.length === port.multicastAddresses.length) {
    return testpmd.output.warn(`multicast address not filtered by port ${id}`);
  }
  await setMulticastAddresses(testpmd, port, rest);
}
