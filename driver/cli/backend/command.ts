/** `virtio-pmd backend` on the command line: its options, and what its help says. */

import { Command, Option } from 'commander';
import { ErrorCode, VirtioError } from '../../errors.js';
import { controlSocketOptions } from '../control-option.js';
import { wrongUsage } from '../failure.js';
import type { Interrupt } from '../interrupt.js';
import { oneOf, path, processors, seconds, wholeNumber } from '../option-values.js';
import { print } from '../output.js';
import { capabilities } from './capabilities.js';
import { featureChoice } from './feature-choice.js';
import { type BackendOptions, checkOptions, IDLE_POLICIES, MODES, MOST_THREADS, PAGE_CHOICES } from './options.js';
import { socketGroup, socketMode } from './socket-access.js';

const EXAMPLES = `
Examples:
  virtio-pmd backend --socket-path=/run/vm1.sock
      listens, and sends every packet back to the guest that sent it
  virtio-pmd backend --socket-path=/run/vm1.sock --mode icmpecho
      answers ARP and ping for any address
  virtio-pmd backend --socket-path=/run/vm1.sock --socket-path=/run/vm2.sock --tap tap0
      a switch between two guests and the kernel's interface tap0 (as root)
  virtio-pmd backend --socket-path=/run/vm1.sock --socket-path=/run/vm2.sock \\
                     --mode switch --lcores 2,3 --stats 1
      the same between guests that are polled on two processors, and what it moves
  virtio-pmd backend --socket-path=/run/vm1.sock --mode sink --stats 1
      takes what the guest sends, and shows the rates every second
  virtio-pmd backend --socket-path=/run/a.sock --socket-path=/run/b.sock --client
      connects to front-ends that listen, and again whenever they went away
  virtio-pmd backend --socket-path=/run/vm1.sock --mode pcap --pcap-out vm1.pcap
      stores what the guest sends; a second connection's goes to vm1.2.pcap
  virtio-pmd backend --socket-path=/run/vm1.sock --json --metrics 9100
      one JSON event a line, and numbers for Prometheus on 127.0.0.1:9100

A front-end for it, for instance QEMU:
  qemu-system-x86_64 -m 1G \\
      -object memory-backend-memfd,id=mem,size=1G,share=on -numa node,memdev=mem \\
      -chardev socket,id=c0,path=/run/vm1.sock \\
      -netdev vhost-user,id=n0,chardev=c0 -device virtio-net-pci,netdev=n0

--features takes names separated by commas, and offers only these beside
VERSION_1 and PROTOCOL_FEATURES (--features MRG_RXBUF,EVENT_IDX); with a minus
before each name, all but these (--features=-EVENT_IDX,-MRG_RXBUF). What one
of them requires must be offered too, such as CTRL_VQ for MQ.

SIGUSR1 prints for each connection its features, its memory, where its rings
stand, and who has to act next.

Exit status: 0 ended by SIGTERM, SIGINT (Ctrl-C) or SIGHUP after a clean stop,
or with --fd when the front-end went away; 1 something failed; 2 wrong usage. It
stays in the foreground. A second Ctrl-C forces the end.`;

const sockets: readonly Option[] = [
  new Option('--socket-path <PATH>', 'the vhost-user socket; may be repeated, for several guests').argParser(
    (text: string, earlier: readonly string[] = []) => [...earlier, path('--socket-path')(text)],
  ),
  new Option('--fd <FDNUM>', 'serve one connected socket that was handed over as this descriptor').argParser(
    wholeNumber('--fd', 3, 2 ** 20 - 1),
  ),
  new Option('--client', 'connect to front-ends that listen, and again when they went away'),
  new Option('--socket-mode <OCTAL>', 'permissions of the socket files, such as 660').argParser(socketMode),
  new Option('--socket-group <GROUP>', 'group of the socket files, by name or number').argParser(socketGroup),
  new Option('--max-connections <N>', 'front-ends at a time on each socket, 1 to 1024').argParser(
    wholeNumber('--max-connections', 1, 1024),
  ),
];

const device: readonly Option[] = [
  new Option('--queues <N>', 'queue pairs offered, 1 to 128').argParser(wholeNumber('--queues', 1, 128)).default(1),
  new Option('--features <LIST>', 'offer only these features, or with a minus before each, all but these').argParser(
    featureChoice,
  ),
  new Option('--iommu', 'offer ACCESS_PLATFORM, for front-ends that translate addresses'),
];

const size = (text: string): number | 'imix' =>
  text === 'imix' ? text : wholeNumber('--size', 60, 1518, '60 to 1518 bytes, or imix')(text);

/** What the kernel takes as a name: 1 to 15 characters without slashes and blanks (netdevice(7)). */
function interfaceName(text: string): string {
  if (/^[^\s/:%]{1,15}$/.test(text) && text !== '.' && text !== '..') return text;
  throw new VirtioError(
    ErrorCode.INVALID_ARGUMENT,
    `--tap takes an interface of 1 to 15 characters, not ${text === '' ? 'empty' : text}`,
    { value: text, advice: 'see --help' },
  );
}

const packets: readonly Option[] = [
  new Option('--mode <MODE>', `what becomes of packets: ${MODES.join(', ')} (default: echo)`).argParser(
    oneOf('--mode', MODES),
  ),
  new Option(
    '--tap <NAME>',
    'switch: connect it with this tap interface of the kernel, made where it is not there',
  ).argParser(interfaceName),
  new Option('--pcap-in <FILE>', 'pcap: send the packets of this capture to the guest, once').argParser(
    path('--pcap-in'),
  ),
  new Option('--pcap-out <FILE>', 'pcap: store what the guest sends').argParser(path('--pcap-out')),
  new Option('--rate <PPS>', 'source: packets a second on each queue (default: as fast as they are taken)').argParser(
    wholeNumber('--rate', 1, 1e9),
  ),
  new Option('--size <BYTES>', 'source: bytes of each packet, 60 to 1518, or imix (default: 64)').argParser(size),
];

const machine: readonly Option[] = [
  new Option('--lcores <A,B,…>', 'processors to poll on, a thread each (default: one thread, anywhere)').argParser(
    processors('--lcores', MOST_THREADS),
  ),
  new Option('--idle <HOW>', 'a poll thread without work: spin, pause, yield or sleep')
    .argParser(oneOf('--idle', IDLE_POLICIES))
    .default('sleep'),
  new Option('--memory <PAGES>', 'pages for packets: auto, 4K, 2M or 1G')
    .argParser(oneOf('--memory', PAGE_CHOICES))
    .default('auto'),
];

const output: readonly Option[] = [
  new Option('--stats <S>', 'print packets, rates and drops every so many seconds').argParser(seconds('--stats')),
  new Option(
    '--metrics <PORT>',
    'serve metrics for Prometheus (OpenMetrics) at http://127.0.0.1:PORT/metrics',
  ).argParser(wholeNumber('--metrics', 0, 65535)),
  ...controlSocketOptions(),
  new Option('--describe', 'describe each connection, as SIGUSR1 does, whenever its rings change'),
  new Option('--json', 'print one JSON object a line for each event'),
  new Option('--print-capabilities', 'print what this back-end can do as JSON, and exit'),
];

/** Beside --print-capabilities all else is ignored, even what is wrong (vhost-user "Back-end program conventions"). */
class ConventionalCommand extends Command {
  override parseOptions(args: string[]): ReturnType<Command['parseOptions']> {
    const alone = args.find((arg) => arg === '--print-capabilities');
    return super.parseOptions(alone === undefined ? args : [alone]);
  }
}

export function backendCommand(interrupt: Interrupt, finish: (status: number) => void): Command {
  const command = new ConventionalCommand('backend')
    .summary('run the vhost-user back-end for guests, as a daemon')
    .description('Serves virtio-net devices to guests and other front-ends over vhost-user sockets.')
    .helpOption('-h, --help', 'show this help')
    .addHelpText('after', EXAMPLES);
  const groups = {
    'Sockets:': sockets,
    'Device:': device,
    'Packets:': packets,
    'Machine:': machine,
    'Output:': output,
  };
  for (const [title, options] of Object.entries(groups)) {
    for (const option of options) command.addOption(option.helpGroup(title));
  }
  return command.action(async (options: BackendOptions) => {
    if (options.printCapabilities === true) {
      await print(`${JSON.stringify(capabilities(Object.values(groups).flat()))}\n`);
      return finish(0);
    }
    checkOptions(options, (message) => wrongUsage(message, 'virtio-pmd backend'));
    // The library is loaded when there is something to do, and not for a help text.
    const { backend } = await import('./backend.js');
    finish(await backend(options, interrupt));
  });
}
