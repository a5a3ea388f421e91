/** `show port info`: everything about a port. */

import type { DescriptorLimits, DeviceInfo } from '../devices/ethernet-device.js';
import type { TestPort } from '../test-port.js';
import { DeviceCapability, hasBit, namesOfBits, RxOffload } from './bits-of-ethdev.js';
import { supportedRssTypes } from './rss-types.js';
import { hex, linkStatus, macText, onOff, speedName } from './words.js';

const BORDER = '*'.repeat(21);

export function portInfo(port: TestPort): string {
  const { configured, device, socket } = port;
  const info = device.info();
  const link = device.link();
  const parts = [
    '',
    `${BORDER} Infos for port ${String(port.id).padEnd(2)} ${BORDER}`,
    `MAC address: ${macText(port.macAddress)}`,
    `Device name: ${device.name}`,
    `Driver name: ${info.driverName}`,
    'Firmware-version: not available',
    `Devargs: ${device.devargs}`,
    `Connect to socket: ${socket}`,
    `memory allocation on the socket: ${socket}`,
    `Link status: ${linkStatus(link)}`,
    `Link speed: ${speedName(link.speed)}`,
    `Link duplex: ${link.fullDuplex ? 'full' : 'half'}-duplex`,
    `Autoneg status: ${link.autoneg ? 'On' : 'Off'}`,
    `MTU: ${port.mtu}`,
    `Promiscuous mode: ${enabled(port.promiscuous)}`,
    `Allmulticast mode: ${enabled(port.allMulticast)}`,
    `Maximum number of MAC addresses: ${info.maxMacAddresses}`,
    `Maximum number of MAC addresses of hash filtering: ${info.maxHashMacAddresses}`,
    'VLAN offload: ',
    vlanOffloads(configured?.rxOffloads ?? 0n),
    ...hashLines(info),
    `Minimum size of RX buffer: ${info.minRxBufferBytes}`,
    `Maximum configurable length of RX packet: ${info.maxRxPacketBytes}`,
    `Maximum configurable size of LRO aggregated packet: ${info.maxLroBytes}`,
    ...queueLines('RX', configured?.rxQueues ?? 0, info.maxRxQueues, info.rxDescriptors),
    ...queueLines('TX', configured?.txQueues ?? 0, info.maxTxQueues, info.txDescriptors),
    `Max segment number per packet: ${info.txDescriptors.maxSegments}`,
    `Max segment number per MTU/TSO: ${info.txDescriptors.maxMtuSegments}`,
    `Device capabilities: ${hex(info.capabilities)}(${namesOfBits(info.capabilities, DeviceCapability)
      .map((name) => ` ${name}`)
      .join('')} )`,
    'Device error handling mode: none',
  ];
  return `${parts.join('\n')}\n`;
}

/** Which ports there are, for whoever named another one. */
export const validPorts = (ports: readonly TestPort[]): string =>
  `The valid ports array is [${ports.map(({ id }) => ` ${id}`).join('')} ]`;

/** The head of `show port summary`. */
export const portSummaryHead = (ports: number): string =>
  `Number of available ports: ${ports}\n${summaryRow('Port', 'MAC Address', 'Name', 'Driver', 'Status', 'Link')}`;

/** The row of a port below that. */
export function portSummary({ id, device, macAddress }: TestPort): string {
  const link = device.link();
  const { driverName } = device.info();
  return summaryRow(String(id), macText(macAddress), device.name, driverName, linkStatus(link), speedName(link.speed));
}

const summaryRow = (port: string, mac: string, name: string, driver: string, status: string, link: string): string =>
  `${port.padEnd(4)} ${mac.padEnd(17)} ${name.padEnd(12)} ${driver.padEnd(14)} ${status.padEnd(8)} ${link}\n`;

const enabled = (on: boolean): string => (on ? 'enabled' : 'disabled');

function vlanOffloads(offloads: bigint): string {
  const state = (offload: number): string => onOff(hasBit(offloads, offload));
  const { VLAN_STRIP, VLAN_FILTER, VLAN_EXTEND, QINQ_STRIP } = RxOffload;
  return `  strip ${state(VLAN_STRIP)}, filter ${state(VLAN_FILTER)}, extend ${state(VLAN_EXTEND)}, qinq strip ${state(QINQ_STRIP)}`;
}

function hashLines(info: DeviceInfo): readonly string[] {
  const lines: string[] = [];
  if (info.hashKeyBytes > 0) lines.push(`Hash key size in bytes: ${info.hashKeyBytes}`);
  if (info.redirectionTableSize > 0) lines.push(`Redirection table size: ${info.redirectionTableSize}`);
  if (info.rssTypes === 0n) return [...lines, 'No RSS offload flow type is supported.'];
  return [...lines, 'Supported RSS offload flow types:', supportedRssTypes(info.rssTypes).trimEnd()];
}

const queueLines = (kind: 'RX' | 'TX', queues: number, most: number, limits: DescriptorLimits): readonly string[] => [
  `Current number of ${kind} queues: ${queues}`,
  `Max possible ${kind} queues: ${most}`,
  `Max possible number of ${kind}Ds per queue: ${limits.max}`,
  `Min possible number of ${kind}Ds per queue: ${limits.min}`,
  `${kind}Ds number alignment: ${limits.align}`,
];
