/** How addresses, speeds and errors look in testpmd's reports. */

import type { LinkState } from '../devices/ethernet-device.js';

const SPEED_UNKNOWN = 0xffff_ffff;
/** Mbit/s of `RTE_ETH_SPEED_NUM_*` whose names are not the number itself. */
const SPEEDS: ReadonlyMap<number, string> = new Map([
  [0, 'None'],
  [10, '10 Mbps'],
  [100, '100 Mbps'],
  [1000, '1 Gbps'],
  [2500, '2.5 Gbps'],
  [5000, '5 Gbps'],
  [10_000, '10 Gbps'],
  [20_000, '20 Gbps'],
  [25_000, '25 Gbps'],
  [40_000, '40 Gbps'],
  [50_000, '50 Gbps'],
  [56_000, '56 Gbps'],
  [100_000, '100 Gbps'],
  [200_000, '200 Gbps'],
  [SPEED_UNKNOWN, 'Unknown'],
]);

/** `10 Gbps`, `Unknown`; `Invalid` for a speed that Ethernet has not. */
export const speedName = (speed: number): string => SPEEDS.get(speed) ?? 'Invalid';

export const linkStatus = (link: LinkState): string => (link.up ? 'up' : 'down');

/** `02:00:00:00:00:01`. */
export const macText = (address: Uint8Array): string =>
  Array.from(address, (octet) => octet.toString(16).padStart(2, '0').toUpperCase()).join(':');

export const isZeroMac = (address: Uint8Array): boolean => address.every((octet) => octet === 0);

export const hex = (value: bigint): string => `0x${value.toString(16)}`;

/** As switches are printed. */
export const onOff = (on: boolean): string => (on ? 'on' : 'off');
