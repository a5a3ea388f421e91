/** Ports that come and go while the application runs. */

import { ErrorCode, VirtioError } from '../../../errors.js';
import type { EthernetDevice } from '../devices/ethernet-device.js';
import type { Testpmd } from '../testpmd.js';
import { setPromiscuousAtFirst } from './ethdev.js';
import { closeOne } from './lifecycle.js';
import { applyDefaultOffloads, applyQueueSettings } from './queue-settings.js';

/**
 * Makes the device of a name and its devargs, `net_null0` or `net_tap0,iface=tap0`.
 *
 * @throws VirtioError NOT_FOUND for a name of no known kind, whatever the device throws
 */
export async function probe(testpmd: Testpmd, identifier: string): Promise<EthernetDevice> {
  const comma = identifier.indexOf(',');
  const name = comma < 0 ? identifier : identifier.slice(0, comma);
  const devargs = comma < 0 ? '' : identifier.slice(comma + 1);
  if (testpmd.devices.has(name)) {
    throw new VirtioError(ErrorCode.IN_USE, `Device ${name} is already probed`);
  }
  const maker = testpmd.makers.find((one) => one.matches(name));
  if (maker === undefined) {
    throw new VirtioError(ErrorCode.NOT_FOUND, `no driver found for ${name}`, {
      advice: 'name a kind of port that there is: net_virtio_user, net_vhost, net_tap, net_pcap, net_null, net_ring',
    });
  }
  const device = await maker.make(name, devargs, {
    pool: testpmd.pool,
    portId: testpmd.nextPortId,
    log: (line) => testpmd.output.warn(line),
  });
  testpmd.devices.add(name);
  return device;
}

export async function attachPort(testpmd: Testpmd, identifier: string): Promise<void> {
  const { output, settings } = testpmd;
  output.say('Attaching a new port...');
  let device: EthernetDevice;
  try {
    device = await probe(testpmd, identifier);
  } catch (error) {
    // One that is there already is no failure, and no new port.
    if (error instanceof VirtioError && error.code === ErrorCode.IN_USE) return;
    testpmd.log(error);
    return output.warn(`testpmd: Failed to attach port ${identifier}`);
  }
  const port = testpmd.addPort(device);
  testpmd.checkNumaNode(port);
  applyDefaultOffloads(port, settings);
  applyQueueSettings(port, settings);
  await setPromiscuousAtFirst(testpmd, port.id);
  testpmd.configuredPorts = [...testpmd.forwardPorts, port.id];
  testpmd.forwardPortCount = testpmd.configuredPorts.length;
  output.say(`Port ${port.id} is attached. Now total ports is ${testpmd.ports.size}`);
  output.say('Done');
}

export async function detachPort(testpmd: Testpmd, id: number): Promise<void> {
  const { output } = testpmd;
  const port = testpmd.ports.get(id);
  if (port === undefined) return output.warn(`Invalid port_id=${id}`);
  if (port.status !== 'stopped') return output.warn('Port not stopped');
  output.warn('Port was not closed');
  output.say('Removing a device...');
  await closeOne(testpmd, port);
  testpmd.devices.delete(port.device.name);
  output.say('Device is detached');
  sayTotal(testpmd);
}

/** By the name of the device, whether its port was closed before or not. */
export async function detachDevice(testpmd: Testpmd, identifier: string): Promise<void> {
  const { output } = testpmd;
  output.say('Removing a device...');
  const name = identifier.split(',', 1)[0] ?? '';
  const port = testpmd.allPorts.find(({ device }) => device.name === name);
  if (port !== undefined && port.status !== 'stopped') return output.warn(`Port ${port.id} not stopped`);
  if (!testpmd.devices.delete(name)) return output.warn(`testpmd: Failed to detach device ${name}(vdev)`);
  if (port !== undefined) await closeOne(testpmd, port);
  output.say(`Device ${identifier} is detached`);
  sayTotal(testpmd);
}

function sayTotal({ output, ports }: Testpmd): void {
  output.say(`Now total ports is ${ports.size}`);
  output.say('Done');
}
