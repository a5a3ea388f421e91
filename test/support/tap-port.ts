/** A port of the driver whose device is a tap: the kernel as what is at the other end of its offloads. */

import { DeviceThread } from '../../driver/backend/device-thread.js';
import { EmulatedPciFunction } from '../../driver/backend/emulated-pci-function.js';
import { NetDevice } from '../../driver/backend/net-device.js';
import { tapPort } from '../../driver/backend/ports/built-in.js';
import { Port } from '../../driver/net/port.js';
import type { PortOptions } from '../../driver/net/port-options.js';
import type { Feature } from '../../driver/spec/features.js';
import { PciModernTransport } from '../../driver/transport/pci-modern.js';
import { TapNamespace } from './tap-namespace.js';
import { uniqueName } from './test-names.js';

/** The kernel's addresses; the port's are those of `packetOf`: 10.1.2.3, 2001:db8::1 and 02:00:00:00:00:02. */
export const KERNEL = { 4: '10.4.5.6', 6: '2001:db8::2', mac: '02:00:00:00:00:01' } as const;
export const PORT = { 4: '10.1.2.3', 6: '2001:db8::1', mac: '02:00:00:00:00:02' } as const;

/**
 * Runs `body` with a port that is started over an embedded device with a tap, the kernel's end of which is in a namespace of
 * its own, and knows the port.
 *
 * @param without features that the device does not offer
 */
export async function withTapPort(
  without: readonly Feature[],
  options: PortOptions,
  body: (port: Port, space: TapNamespace, tap: string) => Promise<void>,
): Promise<void> {
  const tap = uniqueName('ot');
  await using thread = await DeviceThread.start({});
  const device = new NetDevice(thread, { port: tapPort({ name: tap }), without });
  await device.ready();
  const fn = new EmulatedPciFunction(device, { address: 'loopback:' });
  const released: AsyncDisposable = { [Symbol.asyncDispose]: () => fn.closed };
  await using port = new Port(PciModernTransport.open(fn), { ...options, resources: [released, device] });
  await port.start();
  const space = await TapNamespace.create(tap, KERNEL[4]);
  try {
    await space.run('ip', 'link', 'set', tap, 'address', KERNEL.mac);
    await space.run('ip', 'route', 'add', PORT[4], 'dev', tap);
    await space.run('ip', '-6', 'address', 'add', `${KERNEL[6]}/64`, 'dev', tap, 'nodad');
    for (const version of [4, 6] as const)
      await space.run('ip', `-${version}`, 'neigh', 'replace', PORT[version], 'lladdr', PORT.mac, 'dev', tap);
    await body(port, space, tap);
  } finally {
    await space.close();
  }
}
