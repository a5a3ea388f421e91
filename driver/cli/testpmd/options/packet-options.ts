/** Options for what is forwarded and made: mode, bursts, packets of txonly and flowgen, the work of noisy. */

import { isIPv4 } from 'node:net';
import { numberList } from '../forward-sets.js';
import {
  MAX_SPLIT,
  setForwardMode,
  setRxHeaders,
  setRxOffsets,
  setRxSegments,
  setTxSegments,
} from '../packet-settings.js';
import { MAX_BURST, MAX_SEGMENTS, type Settings } from '../settings.js';
import type { Testpmd } from '../testpmd.js';
import { atoi, type OptionHandlers } from './option-handler.js';
import { refusal } from './refusal.js';

export const packetOptions: OptionHandlers = {
  'forward-mode': setForwardMode,
  burst: (testpmd, value) => {
    const packets = atoi(value);
    if (packets === 0) {
      throw refusal(
        testpmd.ports.size === 0
          ? `Failed to get driver recommended burst size, please provide a value between 1 and ${MAX_BURST}`
          : `PMD does not recommend a burst size. Provided value must be between 1 and ${MAX_BURST}`,
      );
    }
    if (packets < 0 || packets > MAX_BURST) throw refusal(`burst must be between1 and ${MAX_BURST}`);
    testpmd.settings.burst = packets;
  },
  'no-flush-rx': ({ settings }) => {
    settings.flushRx = false;
  },
  'flowgen-clones': ({ settings }, value) => {
    if (atoi(value) < 0) throw refusal('clones must be >= 0 and <= current burst');
    settings.flowgenClones = atoi(value) & 0xffff;
  },
  'flowgen-flows': ({ settings }, value) => {
    if (atoi(value) <= 0) throw refusal('flows must be >= 1');
    settings.flowgenFlows = atoi(value);
  },
  txpkts: (testpmd, value) => {
    const lengths = numberList(testpmd.output, value, 'txpkt segments', MAX_SEGMENTS);
    if (lengths === undefined) throw refusal('bad txpkts');
    setTxSegments(testpmd, lengths);
  },
  rxoffs: (testpmd, value) => {
    const offsets = numberList(testpmd.output, value, 'rxpkt offsets', MAX_SPLIT);
    if (offsets === undefined) throw refusal('bad rxoffs');
    setRxOffsets(testpmd, offsets);
  },
  rxpkts: (testpmd, value) => {
    const lengths = numberList(testpmd.output, value, 'rxpkt segments', MAX_SPLIT);
    if (lengths === undefined) throw refusal('bad rxpkts');
    setRxSegments(testpmd, lengths);
  },
  rxhdrs: (testpmd, value) => {
    if (!setRxHeaders(testpmd, value)) throw refusal('bad rxpkts');
  },
  'txonly-multi-flow': ({ settings }) => {
    settings.txMultiFlow = true;
  },
  'tx-ip': ({ settings }, value) => {
    const [source = '', destination] = value.split(',', 2);
    if (source === '' || destination === undefined) throw refusal(`Invalid tx-ip: ${value}`);
    if (!isIPv4(source)) throw refusal(`Invalid source IP address: ${source}`);
    if (!isIPv4(destination)) throw refusal(`Invalid destination IP address: ${source}`);
    settings.txIpSource = ipv4Number(source);
    settings.txIpDestination = ipv4Number(destination);
  },
  'tx-udp': ({ settings }, value) => {
    const [, source, destination = source] = /^\s*(\d+)(?:,\s*(\d+))?$/.exec(value) ?? [];
    if (source === undefined || Number(source) > 0xffff) throw refusal(`Invalid UDP port: ${value}`);
    if (destination === undefined || Number(destination) > 0xffff) {
      throw refusal(`Invalid destination UDP port: ${destination}`);
    }
    settings.txUdpSource = Number(source);
    settings.txUdpDestination = Number(destination);
  },
  'noisy-tx-sw-buffer-size': noisy('noisy-tx-sw-buffer-size', 'noisyBufferPackets'),
  'noisy-tx-sw-buffer-flushtime': noisy('noisy-tx-sw-buffer-flushtime', 'noisyFlushTime'),
  'noisy-lkup-memory': noisy('noisy-lkup-memory', 'noisyMemoryMegabytes'),
  'noisy-lkup-num-writes': noisy('noisy-lkup-num-writes', 'noisyWrites'),
  'noisy-lkup-num-reads': noisy('noisy-lkup-num-reads', 'noisyReads'),
  'noisy-lkup-num-reads-writes': noisy('noisy-lkup-num-reads-writes', 'noisyReadsWrites'),
};

type NoisySetting = Extract<keyof Settings, `noisy${string}`>;

function noisy(name: string, setting: NoisySetting): (testpmd: Testpmd, value: string) => void {
  return ({ settings }, value) => {
    if (atoi(value) < 0) throw refusal(`${name} must be >= 0`);
    settings[setting] = atoi(value);
  };
}

const ipv4Number = (address: string): number =>
  address.split('.').reduce((number, octet) => ((number << 8) | Number(octet)) >>> 0, 0);
