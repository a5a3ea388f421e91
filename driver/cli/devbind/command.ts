/** `virtio-pmd devbind` on the command line: which driver has which network device, and giving one to another. */

import { existsSync, writeFileSync } from 'node:fs';
import { Command, Option } from 'commander';
import { ErrorCode, VirtioError } from '../../errors.js';
import {
  bindFunction,
  type NetworkFunction,
  networkFunctions,
  type PciRoots,
  unbindFunction,
} from '../../pci/binding.js';
import { parsePciAddress } from '../../pci/pci-address.js';
import { ExitStatus, wrongUsage } from '../failure.js';
import { print } from '../output.js';

const EXAMPLES = `
Examples:
  virtio-pmd devbind --status
      every network device, who has it, its IOMMU group
  virtio-pmd devbind --bind vfio-pci 0000:00:04.0
      gives a device to a poll-mode driver
  virtio-pmd devbind --bind virtio-pci 0000:00:04.0
      gives it back to the kernel

Exit status: 0 done, 1 it failed, 2 wrong usage.`;

/** Where the kernel is told that VFIO may do without an IOMMU. */
const NOIOMMU_SWITCH = '/sys/module/vfio/parameters/enable_unsafe_noiommu_mode';
const COMMAND = 'virtio-pmd devbind';

interface DevbindOptions {
  readonly status?: boolean;
  readonly bind?: string;
  readonly unbind?: boolean;
  readonly noiommu?: boolean;
  readonly force?: boolean;
  readonly json?: boolean;
}

export function devbindCommand(finish: (status: number) => void): Command {
  return new Command('devbind')
    .description('Shows which driver has which network device, and gives one to another.')
    .argument('[BDF...]', 'devices, such as 0000:00:04.0 or 00:04.0')
    .addOption(new Option('--status', 'show all network devices'))
    .addOption(new Option('--bind <DRIVER>', 'give the devices to this driver: vfio-pci, virtio-pci, …'))
    .addOption(new Option('--unbind', 'take the devices from their drivers').conflicts('bind'))
    .addOption(new Option('--noiommu', 'let VFIO do without an IOMMU: the device then reaches all memory'))
    .addOption(new Option('--force', 'even the device that carries the default route'))
    .addOption(new Option('--json', 'the status as JSON, for scripts'))
    .addHelpText('after', EXAMPLES)
    .action(async (addresses: string[], options: DevbindOptions) => {
      await devbind(addresses, options);
      finish(ExitStatus.SUCCESS);
    });
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
