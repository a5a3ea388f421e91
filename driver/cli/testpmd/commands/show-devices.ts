/** `show port P macs|mcast_macs` and `show device info`. */

import { type Command, command } from '../console/grammar.js';
import { deviceInfo } from '../reports/device-info.js';
import { macAddresses, multicastAddresses } from '../reports/mac-addresses.js';
import type { TestPort } from '../test-port.js';
import type { Testpmd } from '../testpmd.js';
import { answer } from './answer.js';

function showAddresses(testpmd: Testpmd, id: number, what: 'macs' | 'mcast_macs'): void {
  const port = testpmd.portOf(id);
  if (port === undefined) return;
  const { macAddress, addedMacAddresses } = port;
  const unicast = what === 'macs';
  const addresses = unicast ? [macAddress, ...addedMacAddresses] : port.multicastAddresses;
  const text = (): string => (unicast ? macAddresses(port) : multicastAddresses(port));
  answer(testpmd, unicast ? 'mac-addresses' : 'multicast-addresses', { port: id, addresses }, text);
}

function showDevice(testpmd: Testpmd, port: TestPort): void {
  const { id, device, macAddress } = port;
  const record = { name: device.name, driverName: device.info().driverName, devargs: device.devargs };
  answer(testpmd, 'device-info', { ...record, port: id, macAddress }, () => deviceInfo(port));
}

/** EAL knows what is a device's name by its driver's; of another one it says nothing at all where it is not there. */
function showNamed(testpmd: Testpmd, name: string): void {
  const { output, allPorts, makers } = testpmd;
  if (name === 'all') {
    for (const port of allPorts) showDevice(testpmd, port);
    return;
  }
  const [wanted = ''] = name.split(',');
  if (!makers.some((maker) => maker.matches(wanted))) {
    output.warn(`EAL: failed to parse device "${wanted}"`);
    output.warn('cannot parse identifier');
    return;
  }
  for (const port of allPorts.filter(({ device }) => wanted.startsWith(device.name))) showDevice(testpmd, port);
}

export const showDeviceCommands: readonly Command[] = [
  command(
    'show port {port:u16} {what:macs|mcast_macs}',
    'the Ethernet addresses of a port',
    (testpmd, { port, what }) => showAddresses(testpmd, port, what),
  ),
  command('show device info {name:word}', 'a device, or all of them', (testpmd, { name }) => showNamed(testpmd, name)),
];
