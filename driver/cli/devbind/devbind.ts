/** `virtio-pmd devbind`: which driver has which network device, and giving one to another. */

import { existsSync, writeFileSync } from 'node:fs';
import {
  bindFunction,
  ErrorCode,
  type NetworkFunction,
  networkFunctions,
  type PciRoots,
  parsePciAddress,
  unbindFunction,
  VirtioError,
} from '../../index.js';
import { wrongUsage } from '../failure.js';
import { print } from '../output.js';

/** Where the kernel is told that VFIO may do without an IOMMU. */
const NOIOMMU_SWITCH = '/sys/module/vfio/parameters/enable_unsafe_noiommu_mode';
const COMMAND = 'virtio-pmd devbind';

/** The options as the command line has them. */
export interface DevbindOptions {
  readonly status?: boolean;
  readonly bind?: string;
  readonly unbind?: boolean;
  readonly noiommu?: boolean;
  readonly force?: boolean;
  readonly json?: boolean;
}

/** Does what the options say, then shows the status if that is wanted. */
export async function devbind(
  addresses: readonly string[],
  options: DevbindOptions,
  roots: PciRoots = {},
): Promise<void> {
  const { status = false, bind, unbind = false, noiommu = false, force = false, json = false } = options;
  const changes = bind !== undefined || unbind;
  if (!status && !changes) throw wrongUsage('nothing to do: give --status, --bind or --unbind', COMMAND);
  if (changes !== addresses.length > 0) {
    throw wrongUsage(changes ? 'name the devices to bind' : 'devices go with --bind and --unbind', COMMAND);
  }
  const devices = addresses.map(deviceAddress);
  if (noiommu) allowNoIommu();
  for (const device of devices) {
    if (bind === undefined) unbindFunction(device, force, roots);
    else bindFunction(device, bind, force, roots);
  }
  if (!status) return;
  const functions = networkFunctions(roots);
  await print(json ? `${JSON.stringify(functions)}\n` : await statusTable(functions));
}

function deviceAddress(text: string): string {
  const address = parsePciAddress(text);
  if (address === undefined) throw wrongUsage(`${text} is no PCI address such as 0000:00:04.0`, COMMAND);
  return address;
}

async function statusTable(functions: readonly NetworkFunction[]): Promise<string> {
  if (functions.length === 0) return 'There is no network device on the PCI bus.\n';
  const { default: Table } = await import('cli-table3');
  const table = new Table({
    head: ['device', 'id', 'driver', 'interface', 'IOMMU group', ''],
    style: { head: [], border: [], compact: true },
  });
  for (const { address, id, isVirtio, driver, interfaces, iommuGroup, carriesDefaultRoute } of functions) {
    const note = carriesDefaultRoute ? 'carries the default route' : isVirtio ? 'virtio' : '';
    table.push([address, id, driver ?? 'none', interfaces.join(', '), iommuGroup ?? 'none', note]);
  }
  return `${table.toString()}\n`;
}

function allowNoIommu(): void {
  if (!existsSync(NOIOMMU_SWITCH)) {
    throw new VirtioError(ErrorCode.UNSUPPORTED, 'this kernel has no VFIO without an IOMMU', {
      value: NOIOMMU_SWITCH,
      advice: 'unbind the device and open the port with pciAccess sysfs',
    });
  }
  writeFileSync(NOIOMMU_SWITCH, '1');
}
