/** `virtio-pmd loopback` on the command line: its options, and what its help says. */

import { Command, Option } from 'commander';
import { controlSocketOptions } from '../control-option.js';
import { wrongUsage } from '../failure.js';
import type { Interrupt } from '../interrupt.js';
import { oneOf, path, processors, repeatable, seconds, wholeNumber } from '../option-values.js';
import {
  checkOptions,
  IDLE_POLICIES,
  LARGEST_PACKET,
  type LoopbackOptions,
  PAGE_CHOICES,
  PCI_ACCESSES,
  SMALLEST_PACKET,
} from './options.js';

const EXAMPLES = `
Examples:
  virtio-pmd loopback
      a million packets of 64 bytes through the driver and the bundled back-end,
      without root, hugepages or a virtual machine
  virtio-pmd loopback --transport vhost-user --queues 2 --size imix
      over a vhost-user socket, with two queue pairs and packets of three sizes
  virtio-pmd loopback --pcap-in real.pcap --pcap-out back.pcap
      sends a real capture, and stores what came back with the capture's times
  virtio-pmd loopback --connect /run/vhost.sock --reconnect --duration 60
      against any back-end that sends packets back unchanged, such as
      dpdk-testpmd --no-pci --vdev net_vhost0,iface=/run/vhost.sock -- \\
          --forward-mode=io --port-topology=loop --auto-start
  virtio-pmd loopback --device 0000:00:04.0 --packets 10000
      drives a device of this machine that is bound to vfio-pci (virtio-pmd devbind)
  virtio-pmd loopback --json | jq .pps.received
      the result for scripts

Every byte, the length and, in each queue, the order of what comes back are
verified. There are never more packets under way than the receive rings have
buffers for, so that none may be lost. Bits a second count the packets' own
bytes, without what a cable adds to them.

Exit status: 0 all came back as it was sent; 1 it did not, or something failed;
2 wrong usage; 130 stopped by Ctrl-C (a second Ctrl-C forces the end).`;

const size = (text: string): number | 'imix' => {
  const right = `${SMALLEST_PACKET} to ${LARGEST_PACKET} bytes, or imix`;
  return text === 'imix' ? text : wholeNumber('--size', SMALLEST_PACKET, LARGEST_PACKET, right)(text);
};

const traffic: readonly Option[] = [
  new Option('--packets <N>', 'packets to send, over all queues (default: 1,000,000, or the capture once)').argParser(
    wholeNumber('--packets', 1, 1e15),
  ),
  new Option('--duration <S>', 'send for so many seconds; with --packets, whichever ends first').argParser(
    seconds('--duration'),
  ),
  new Option('--size <BYTES>', `${SMALLEST_PACKET} to ${LARGEST_PACKET}, or imix: 64, 594 and 1518 bytes as 7:4:1`)
    .argParser(size)
    .default(64),
  new Option('--burst <N>', 'packets handed over at a time, 1 to 512')
    .argParser(wholeNumber('--burst', 1, 512))
    .default(32),
  new Option('--pcap-in <FILE>', 'send the packets of a capture (pcap, pcapng), again and again up to --packets')
    .argParser(path('--pcap-in'))
    .conflicts('size'),
  new Option('--no-verify', 'count what comes back, and do not look at it'),
];

const device: readonly Option[] = [
  new Option(
    '--transport <KIND>',
    'how the driver reaches the back-end: pci (an emulated PCI function) or vhost-user',
  ).argParser(oneOf('--transport', ['pci', 'vhost-user'])),
  new Option('--ring <FORMAT>', 'format of the rings: split or packed')
    .argParser(oneOf('--ring', ['split', 'packed']))
    .default('split'),
  new Option('--ring-size <N>', 'entries of each ring, 4 to 32768; a power of two unless they are packed')
    .argParser(wholeNumber('--ring-size', 4, 32768))
    .default(256),
  new Option('--queues <N>', 'queue pairs, 1 to 128').argParser(wholeNumber('--queues', 1, 128)).default(1),
  new Option(
    '--demand <FEATURE>',
    'fail unless this feature is negotiated, such as EVENT_IDX; may be repeated',
  ).argParser(repeatable),
  new Option(
    '--socket-path <PATH>',
    'vhost-user: where the bundled back-end listens (default: in a new temporary folder)',
  ).argParser(path('--socket-path')),
  new Option('--connect <PATH>', 'vhost-user: use the back-end that listens here, instead of the bundled one')
    .argParser(path('--connect'))
    .conflicts('socketPath'),
  new Option('--device <BDF>', 'drive this PCI device, such as 0000:00:04.0; what is behind it must send packets back')
    .argParser(path('--device'))
    .conflicts(['socketPath', 'connect']),
  new Option(
    '--pci-access <HOW>',
    'with --device: vfio, or noiommu or sysfs, where nothing stands between the device and all memory',
  ).argParser(oneOf('--pci-access', PCI_ACCESSES)),
  new Option('--legacy', 'with --device: drive it by its legacy registers, whose rings are as long as it says'),
  new Option('--reconnect', 'with --connect: when the back-end goes away, wait for it and go on'),
];

const machine: readonly Option[] = [
  new Option('--memory <PAGES>', 'pages for packets and rings: auto, 4K, 2M or 1G')
    .argParser(oneOf('--memory', PAGE_CHOICES))
    .default('auto'),
  new Option('--lock', 'lock that memory, as a device that does DMA needs it'),
  new Option('--lcores <A,B>', 'processors to pin the driver and the back-end to').argParser(processors('--lcores', 2)),
  new Option('--idle <HOW>', 'a poll thread without work: spin, pause, yield or sleep')
    .argParser(oneOf('--idle', IDLE_POLICIES))
    .default('sleep'),
];

const output: readonly Option[] = [
  new Option('--pcap-out <FILE>', 'store what comes back, as pcap with nanoseconds').argParser(path('--pcap-out')),
  ...controlSocketOptions(),
  new Option('--json', 'print the result as one JSON object'),
];

/** @param run what is done with the options; the command itself unless given */
export function loopbackCommand(interrupt: Interrupt, finish: (status: number) => void, run = runCommand): Command {
  const command = new Command('loopback')
    .summary('send packets through the driver and back, and verify them')
    .description('Sends packets through the driver; the back-end returns them, and every one is verified.')
    .helpOption('-h, --help', 'show this help')
    .addHelpText('after', EXAMPLES);
  const groups = { 'Traffic:': traffic, 'Driver and back-end:': device, 'Machine:': machine, 'Output:': output };
  for (const [title, options] of Object.entries(groups)) {
    for (const option of options) command.addOption(option.helpGroup(title));
  }
  // The default, for scripts that say it.
  command.addOption(new Option('--verify').hideHelp());
  return command.action(async (options: LoopbackOptions) => {
    checkOptions(options, (message) => wrongUsage(message, 'virtio-pmd loopback'));
    finish(await run(options, interrupt));
  });
}

async function runCommand(options: LoopbackOptions, interrupt: Interrupt): Promise<number> {
  // The library is loaded when there is something to do, and not for a help text.
  const { loopback } = await import('./loopback.js');
  return await loopback(options, interrupt);
}
