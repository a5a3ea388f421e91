/** `virtio-pmd doctor` on the command line: its options, and what its help says. */

import { Command, Option } from 'commander';
import { oneOf, wholeNumber } from '../option-values.js';
import { type DoctorOptions, PAGE_CHOICES, PCI_ACCESSES } from './options.js';

const EXAMPLES = `
Examples:
  virtio-pmd doctor
      this machine, and the virtio devices that the kernel leaves alone
  virtio-pmd doctor 0000:00:04.0
      what it takes to drive this device
  virtio-pmd doctor 0000:00:04.0 --queues 2 --interrupts
      the same with two queue pairs, asleep while no packet comes
  virtio-pmd doctor 0000:00:04.0 --pci-access sysfs
      on a machine without an IOMMU
  virtio-pmd doctor /run/vm1.sock
      a vhost-user socket, and the front-end on it
  virtio-pmd doctor --json
      an array with an object for each check, for scripts

A device that nobody has, and that is bound to vfio-pci, is opened and reset to
ask what it offers. Nothing is changed otherwise.

Exit status: 0 all is well, 1 something needed is missing, 2 wrong usage.`;

const options: readonly Option[] = [
  new Option('--pci-access <HOW>', 'how devices are to be reached: vfio, noiommu or sysfs')
    .argParser(oneOf('--pci-access', PCI_ACCESSES))
    .default('vfio'),
  new Option('--queues <N>', 'queue pairs of each device, 1 to 128')
    .argParser(wholeNumber('--queues', 1, 128))
    .default(1),
  new Option('--ring-size <N>', 'entries of each ring').argParser(wholeNumber('--ring-size', 4, 32768)).default(256),
  new Option('--burst <N>', 'packets of a burst').argParser(wholeNumber('--burst', 1, 1024)).default(32),
  new Option('--memory <PAGES>', 'pages for packets and rings: auto, 4K, 2M or 1G')
    .argParser(oneOf('--memory', PAGE_CHOICES))
    .default('auto'),
  new Option('--interrupts', 'packets are waited for asleep'),
  new Option('--json', 'print an array with an object for each check'),
];

export function doctorCommand(finish: (status: number) => void): Command {
  const command = new Command('doctor')
    .summary('check what this machine, a device or a socket lacks')
    .description('Checks what the driver and the back-end need, and says what to do where it is missing.')
    .argument('[BDF|SOCKET...]', 'PCI devices, such as 0000:00:04.0, and vhost-user sockets, such as /run/vm1.sock')
    .helpOption('-h, --help', 'show this help')
    .addHelpText('after', EXAMPLES);
  for (const option of options) command.addOption(option);
  return command.action(async (names: string[], given: DoctorOptions) => {
    const { doctor } = await import('./doctor.js');
    finish(await doctor(names, given));
  });
}
