/** `virtio-pmd devbind` on the command line: its options, and what its help says. */

import { Command, Option } from 'commander';
import { ExitStatus } from '../failure.js';
import type { DevbindOptions } from './devbind.js';

const EXAMPLES = `
Examples:
  virtio-pmd devbind --status
      every network device, who has it, its IOMMU group
  virtio-pmd devbind --bind vfio-pci 0000:00:04.0
      gives a device to a poll-mode driver
  virtio-pmd devbind --bind virtio-pci 0000:00:04.0
      gives it back to the kernel
  virtio-pmd devbind --noiommu --bind vfio-pci 0000:00:04.0
      on a machine without an IOMMU, where the kernel's VFIO may do without

Exit status: 0 done, 1 it failed, 2 wrong usage.`;

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
      const { devbind } = await import('./devbind.js');
      await devbind(addresses, options);
      finish(ExitStatus.SUCCESS);
    });
}
