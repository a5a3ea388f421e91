/** What two runs of the same script may differ in, and why; everything else is compared as it is, layout included. */

export interface Mask {
  readonly why: string;
  readonly pattern: RegExp;
  readonly replacement: string | ((match: string, ...groups: string[]) => string);
}

/** Keeps the columns: a number of any length takes as much room as it and the blanks beside it did. */
const field = (match: string): string => match.replace(/\d+/, (digits) => 'N'.padEnd(digits.length, ' '));

export const masks: readonly Mask[] = [
  {
    why: 'how the program is called',
    pattern: /^(dpdk-testpmd|virtio-pmd testpmd)(?=: )/gm,
    replacement: 'testpmd',
  },
  {
    why: 'the list of options, which is for --help here',
    pattern: /^\nUsage: dpdk-testpmd[\s\S]*?\n(?=Invalid |EAL: )/gm,
    replacement: '',
  },
  {
    why: 'the environment that the library is started in: processors, hugepages, sockets of its own',
    pattern: /^(EAL|TELEMETRY): .*\n/gm,
    replacement: '',
  },
  {
    why: 'the pool of packets is one of ours, not a mempool of a driver to be preferred',
    pattern: /^testpmd: (create a new mbuf pool|preferred mempool ops).*\n/gm,
    replacement: '',
  },
  {
    why: "logs of drivers, which say more or less of what they do; testpmd's own lines follow",
    pattern:
      /^(VIRTIO|VHOST|PMD|TAP|vhost|virtio|rte_pmd|eth_dev|pmd_|eth_|virtio_|VHOST_|tap_|qdisc_)[\w ]*[:(].*\n/gm,
    replacement: '',
  },
  {
    why: 'events of other threads, which come between any two lines',
    pattern: /\nPort \d+: (?:queue state|link state change) event\n/g,
    replacement: '',
  },
  {
    why: 'a log of net_vhost without its name',
    pattern: /^Rx csum will be done in SW.*\n/gm,
    replacement: '',
  },
  {
    why: 'what a failure was, in the words of this library',
    pattern: /^[A-Z_]{4,}: .*\n/gm,
    replacement: '',
  },
  {
    why: 'counters: how much moved in between depends on the machine',
    pattern:
      /\b((?:RX|TX|Rx|Tx)-(?:packets|bytes|missed|errors|nombuf|nombufs|dropped|total|error|pps|bps)): *\d+ *$/gm,
    replacement: '$1: N',
  },
  {
    why: 'rates, which stand at the right of their columns',
    pattern: /\b([RT]x-pps:)( *\d+) /g,
    replacement: (_, name = '', digits = '') => `${name}${'N'.padStart(digits.length)} `,
  },
  {
    why: 'the same, as extended statistics have them',
    pattern: /^((?:rx|tx)_\w+: )\d+$/gm,
    replacement: '$1N',
  },
  {
    why: 'how many bursts there were',
    pattern: /\b([RT]X-bursts : )\d+ /g,
    replacement: '$1N ',
  },
  {
    why: 'the same, in the middle of a line: the columns stay',
    pattern: /\b(?:RX|TX|Rx|Tx)-(?:packets|missed|errors|nombuf|dropped|total): *\d+ */g,
    replacement: field,
  },
  {
    why: 'addresses that a driver made up; those of peers count up from 02:00:00:00:00:00 and stay',
    pattern: /\b(?!02:00:00:00:00)(?:[0-9A-F]{2}:){5}[0-9A-F]{2}\b/g,
    replacement: 'MAC',
  },
  {
    why: 'how many bursts there were, and of which sizes',
    pattern: /(?<=^ {2}[RT]X-bursts : ).*/gm,
    replacement: 'N',
  },
  {
    why: 'where memory lies',
    pattern: /@0x[\da-f]+/g,
    replacement: '@ADDRESS',
  },
  {
    why: 'a mempool of DPDK and our pool of packets have the same fields and another layout',
    pattern: /^( {2}(?:flags|pool|iova|(?:header|elt|total_obj|private_data)_size|ops_index|avg bytes\/object)=).*/gm,
    replacement: '$1N',
  },
  {
    why: 'packets that a thread keeps for itself, or not',
    pattern: /^( *(?:cache_count\[\d+\]|total_cache_count|common_pool_count)=)\d+/gm,
    replacement: '$1N',
  },
  {
    why: 'how much memory there is, and of what pieces',
    pattern: /size\(M\) total: .*/g,
    replacement: 'size(M) total: N',
  },
  {
    why: 'cycles of a processor',
    pattern: /CPU cycles\/packet=.*/g,
    replacement: 'CPU cycles/packet=N',
  },
];

/** Of DPDK's output alone. */
const ofDpdk: readonly Mask[] = [
  {
    why: 'EAL reads its options twice, and complains twice',
    pattern: /^(testpmd: .*\n)\1/gm,
    replacement: '$1',
  },
];

export const masked = (output: string, isDpdk = false): string =>
  (isDpdk ? [...masks, ...ofDpdk] : masks).reduce(
    (text, { pattern, replacement }) => {
      return typeof replacement === 'string' ? text.replace(pattern, replacement) : text.replace(pattern, replacement);
    },
    output.replaceAll('\r\n', '\n'),
  );
