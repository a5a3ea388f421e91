/** Options for queues, rings, offloads and buffers of the ports. */

import { numberList } from '../forward-sets.js';
import { MAX_SPLIT } from '../packet-settings.js';
import { canHaveQueues, queueLimit } from '../queue-limits.js';
import { RxOffload } from '../reports/bits-of-ethdev.js';
import type { Testpmd } from '../testpmd.js';
import { atoi, hexOf, type OptionHandlers } from './option-handler.js';
import { refusal } from './refusal.js';

const MIN_TOTAL_MBUFS = 1024;
const MAX_MBUF_CACHE = 512;
const MIN_FRAME = 64;

const bits = (...numbers: readonly number[]): bigint =>
  numbers.reduce((mask, number) => mask | (1n << BigInt(number)), 0n);

const enableRx =
  (...offloads: readonly number[]) =>
  ({ settings }: Testpmd): void => {
    settings.rxOffloads |= bits(...offloads);
  };

/** A number of at least 0, which `set` takes. */
const atLeastZero =
  (name: string, set: (testpmd: Testpmd, value: number) => void) =>
  (testpmd: Testpmd, text: string): void => {
    const value = atoi(text);
    if (value < 0) throw refusal(`${name} must be >= 0`);
    set(testpmd, value);
  };

export const deviceOptions: OptionHandlers = {
  'disable-crc-strip': enableRx(RxOffload.KEEP_CRC),
  'enable-lro': enableRx(RxOffload.TCP_LRO),
  'enable-scatter': enableRx(RxOffload.SCATTER),
  'enable-rx-cksum': enableRx(RxOffload.IPV4_CKSUM, RxOffload.UDP_CKSUM, RxOffload.TCP_CKSUM),
  'enable-rx-timestamp': enableRx(RxOffload.TIMESTAMP),
  'enable-hw-vlan': enableRx(RxOffload.VLAN_STRIP, RxOffload.VLAN_FILTER, RxOffload.VLAN_EXTEND, RxOffload.QINQ_STRIP),
  'enable-hw-vlan-filter': enableRx(RxOffload.VLAN_FILTER),
  'enable-hw-vlan-strip': enableRx(RxOffload.VLAN_STRIP),
  'enable-hw-vlan-extend': enableRx(RxOffload.VLAN_EXTEND),
  'enable-hw-qinq-strip': enableRx(RxOffload.QINQ_STRIP),
  'enable-drop-en': ({ settings }) => {
    settings.rxThresholds.dropEnable = true;
  },
  'rx-offloads': ({ settings }, value) => {
    settings.rxOffloads = hexOf(value);
  },
  'tx-offloads': ({ settings }, value) => {
    settings.txOffloads = hexOf(value);
  },
  'disable-rss': ({ settings }) => {
    settings.rssTypes = 0n;
  },
  'rss-ip': ({ settings }) => {
    settings.rssTypes = 0xa38cn;
  },
  'rss-udp': ({ settings }) => {
    settings.rssTypes = 0x2_0820n;
  },
  'rss-level-outer': ({ settings }) => {
    settings.rssTypes |= 1n << 50n;
  },
  'rss-level-inner': ({ settings }) => {
    settings.rssTypes |= 2n << 50n;
  },
  rxq: (testpmd, value) => setQueues(testpmd, 'rx', value),
  txq: (testpmd, value) => setQueues(testpmd, 'tx', value),
  hairpinq: (_, value) => {
    if (atoi(value) !== 0) throw refusal(`txq ${atoi(value)} invalid - must be >= 0 && <= 0`);
  },
  rxd: ({ settings }, value) => {
    const entries = atoi(value);
    if (entries <= 0) throw refusal(`rxd(${entries}) invalid - must be > 0`);
    const free = settings.rxThresholds.free ?? -1;
    if (free >= entries) throw refusal(`rxd must be > rx_free_thresh(${free})`);
    settings.rxDescriptors = entries & 0xffff;
  },
  txd: ({ settings }, value) => {
    if (atoi(value) <= 0) throw refusal('txd must be in > 0');
    settings.txDescriptors = atoi(value) & 0xffff;
  },
  rxpt: atLeastZero('rxpt', ({ settings }, value) => {
    settings.rxThresholds.prefetch = value;
  }),
  rxht: atLeastZero('rxht', ({ settings }, value) => {
    settings.rxThresholds.host = value;
  }),
  rxwt: atLeastZero('rxwt', ({ settings }, value) => {
    settings.rxThresholds.writeBack = value;
  }),
  rxfreet: atLeastZero('rxfreet', ({ settings }, value) => {
    settings.rxThresholds.free = value;
  }),
  txpt: atLeastZero('txpt', ({ settings }, value) => {
    settings.txThresholds.prefetch = value;
  }),
  txht: atLeastZero('txht', ({ settings }, value) => {
    settings.txThresholds.host = value;
  }),
  txwt: atLeastZero('txwt', ({ settings }, value) => {
    settings.txThresholds.writeBack = value;
  }),
  txfreet: atLeastZero('txfreet', ({ settings }, value) => {
    settings.txThresholds.free = value;
  }),
  txrst: atLeastZero('txrst', ({ settings }, value) => {
    settings.txThresholds.rs = value;
  }),
  'mbuf-size': (testpmd, value) => {
    const sizes = numberList(testpmd.output, value, 'mbuf-size', MAX_SPLIT);
    if (sizes === undefined) throw refusal('bad mbuf-size');
    if (sizes.some((size) => size <= 0 || size > 0xffff)) throw refusal('mbuf-size should be > 0 and < 65536');
    testpmd.settings.mbufSizes = sizes;
  },
  'total-num-mbufs': ({ settings }, value) => {
    if (atoi(value) <= MIN_TOTAL_MBUFS) throw refusal(`total-num-mbufs should be > ${MIN_TOTAL_MBUFS}`);
    settings.totalMbufs = atoi(value);
  },
  mbcache: ({ settings }, value) => {
    const packets = atoi(value);
    if (packets < 0 || packets > MAX_MBUF_CACHE) throw refusal(`mbcache must be >= 0 and <= ${MAX_MBUF_CACHE}`);
    settings.mbufCache = packets;
  },
  'mp-alloc': (_, value) => {
    if (!['native', 'anon', 'xmem', 'xmemhuge', 'xbuf'].includes(value)) {
      throw refusal(`mp-alloc ${value} invalid - must be: native, anon, xmem or xmemhuge`);
    }
  },
  'max-pkt-len': ({ settings }, value) => {
    const length = atoi(value);
    if (length < MIN_FRAME) throw refusal(`Invalid max-pkt-len=${length} - should be > ${MIN_FRAME}`);
    settings.maxPacketLength = length;
  },
  'max-lro-pkt-size': ({ settings }, value) => {
    settings.maxLroPacketSize = atoi(value) >>> 0;
  },
  'eth-link-speed': ({ output }, value) => {
    const speeds = [1000, 10_000, 25_000, 40_000, 50_000, 100_000, 200_000];
    if (atoi(value) >= 0 && !speeds.includes(atoi(value))) output.warn('Unsupported fixed speed');
  },
  'print-event': ({ output }, value) => checkEvent(output, value, 'print-event'),
  'mask-event': ({ output }, value) => checkEvent(output, value, 'mask-event'),
};

function setQueues(testpmd: Testpmd, direction: 'rx' | 'tx', value: string): void {
  const { settings } = testpmd;
  const count = atoi(value);
  if (count < 0 || !canHaveQueues(testpmd, direction, count)) {
    const { limit } = queueLimit(testpmd.allPorts, direction);
    throw refusal(`${direction}q ${count} invalid - must be >= 0 && <= ${limit}`);
  }
  settings[direction === 'rx' ? 'rxQueues' : 'txQueues'] = count;
  if (settings.rxQueues === 0 && settings.txQueues === 0) {
    throw refusal('Either rx or tx queues should be non-zero');
  }
}

const EVENTS = [
  'unknown',
  'intr_lsc',
  'queue_state',
  'intr_reset',
  'vf_mbox',
  'ipsec',
  'macsec',
  'intr_rmv',
  'dev_probed',
  'dev_released',
  'flow_aged',
  'err_recovering',
  'recovery_success',
  'recovery_failed',
  'all',
];

function checkEvent(output: Testpmd['output'], event: string, option: string): void {
  if (EVENTS.includes(event)) return;
  output.warn(`Invalid event: ${event}`);
  throw refusal(`invalid ${option} argument`);
}
