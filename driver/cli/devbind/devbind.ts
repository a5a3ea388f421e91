/** `virtio-pmd devbind`: which driver has which network device, and giving one to another. */

import { existsSync, writeFileSync } from 'node:fs';
import { ErrorCode, isSystemError, VirtioError } from '../../errors.js';
import type { NetworkFunction, PciRoots } from '../../index.js';
import { bindFunction, networkFunctions, unbindFunction } from '../../pci/binding.js';
import { parsePciAddress } from '../../pci/pci-address.js';
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

/** Where things are; other places in tests. */
export interface DevbindRoots extends PciRoots {
  readonly noIommuSwitch?: string | undefined;
}

/** Does what the options say, then shows the status if that is wanted. */
export async function devbind(
  addresses: readonly string[],
  options: DevbindOptions,
  roots: DevbindRoots = {},
): Promise<void> {
  const { status = false, bind, unbind = false, noiommu = false, force = false, json = false } = options;
  const changes = bind !== undefined || unbind;
  if (!status && !changes && !noiommu) {
    throw wrongUsage('nothing to do: give --status, --bind, --unbind or --noiommu', COMMAND);
  }
  if (changes !== addresses.length > 0) {
    throw wrongUsage(changes ? 'name the devices to bind' : 'devices go with --bind and --unbind', COMMAND);
  }
  const devices = addresses.map(deviceAddress);
  if (noiommu) allowNoIommu(roots.noIommuSwitch ?? NOIOMMU_SWITCH);
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
  for (const fn of functions) {
    const { address, id, driver, interfaces, iommuGroup } = fn;
    table.push([address, id, driver ?? 'none', interfaces.join(', '), iommuGroup ?? 'none', notes(fn).join(', ')]);
  }
  return `${table.toString()}\n`;
}

function notes(fn: NetworkFunction): string[] {
  return [
    ...(fn.isVirtio ? ['virtio'] : []),
    ...(fn.carriesDefaultRoute ? ['carries the default route'] : []),
    ...(fn.carriesLogin ? ['carries a login'] : []),
    ...(fn.isWithoutIommu ? ['without an IOMMU'] : []),
    ...(fn.iommuGroup !== undefined && !fn.isViable ? ['group not viable'] : []),
  ];
}

function allowNoIommu(path: string): void {
  if (!existsSync(path)) {
    throw new VirtioError(ErrorCode.UNSUPPORTED, 'this kernel has no VFIO without an IOMMU, or vfio is not loaded', {
      value: path,
      advice: 'modprobe vfio-pci; where that does not help, unbind the device and choose sysfs (--pci-access sysfs)',
    });
  }
  try {
    writeFileSync(path, '1');
  } catch (cause) {
    if (!isSystemError(cause, 'EACCES') && !isSystemError(cause, 'EPERM')) throw cause;
    throw new VirtioError(ErrorCode.PERMISSION_DENIED, `${path} may not be written by this user`, {
      value: path,
      cause,
      advice: 'run as root',
    });
  }
}
