/** What a front-end's command line says about its devices: QEMU's options, as far as they concern a vhost-user socket. */

import type { Process } from './processes.js';

/** What QEMU was told about the network device of a socket; defaults filled in. */
export interface QemuDevice {
  readonly netdev: string;
  readonly queues: number;
  readonly isMultiqueue: boolean;
  readonly vectors: number | undefined;
  readonly receiveRingSize: number;
  readonly transmitRingSize: number;
}

/** The size of rings that QEMU gives a device that says nothing about them. */
const DEFAULT_RING_SIZE = 256;

export const isQemu = ({ name, arguments: words }: Process): boolean =>
  name.startsWith('qemu') || /(^|\/)qemu-(system|kvm)/.test(words[0] ?? '');

/** Values of an option, `-netdev` or `--netdev`, in order. */
const values = (words: readonly string[], option: string): string[] =>
  words.flatMap((word, index) => (word === `-${option}` || word === `--${option}` ? [words[index + 1] ?? ''] : []));

const property = (value: string, name: string): string | undefined =>
  value
    .split(',')
    .find((part) => part.startsWith(`${name}=`))
    ?.slice(name.length + 1);

/** Bytes of guest memory by `-m`; undefined where it is not said in a way that this knows. */
export function guestMemoryBytes(process: Process): number | undefined {
  const [text] = values(process.arguments, 'm');
  const [, digits, unit = 'M'] = /^(?:size=)?(\d+)([KMGTkmgt])?/.exec(text ?? '') ?? [];
  if (digits === undefined) return undefined;
  return Number(digits) * 1024 ** ('KMGT'.indexOf(unit.toUpperCase()) + 1);
}

/** Paths of `-mem-path` and of memory back-ends in files. */
export const memoryPaths = ({ arguments: words }: Process): string[] => [
  ...values(words, 'mem-path'),
  ...values(words, 'object').flatMap((value) => property(value, 'mem-path') ?? []),
];

/** The network device behind a socket; undefined where the command line does not tell. */
export function qemuDevice({ arguments: words }: Process, path: string): QemuDevice | undefined {
  const chardev = values(words, 'chardev').find((value) => property(value, 'path') === path);
  const id = chardev === undefined ? undefined : property(chardev, 'id');
  const netdev = values(words, 'netdev').find((value) => id !== undefined && property(value, 'chardev') === id);
  const name = netdev === undefined ? undefined : property(netdev, 'id');
  if (netdev === undefined || name === undefined) return undefined;
  const device = values(words, 'device').find((value) => property(value, 'netdev') === name) ?? '';
  const number = (text: string | undefined): number | undefined => (text === undefined ? undefined : Number(text));
  return {
    netdev: name,
    queues: number(property(netdev, 'queues')) ?? 1,
    isMultiqueue: property(device, 'mq') === 'on',
    vectors: number(property(device, 'vectors')),
    receiveRingSize: number(property(device, 'rx_queue_size')) ?? DEFAULT_RING_SIZE,
    transmitRingSize: number(property(device, 'tx_queue_size')) ?? DEFAULT_RING_SIZE,
  };
}
