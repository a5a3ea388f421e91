/** `show config …`: what is set for forwarding. */

import { type Command, command } from '../console/grammar.js';
import { forwardConfiguration, forwardingCores, rxTxConfiguration } from '../reports/forward-configuration.js';
import {
  rxHeaderConfiguration,
  rxOffsetConfiguration,
  rxPacketConfiguration,
  txPacketConfiguration,
  txTimeConfiguration,
} from '../reports/packet-configuration.js';
import type { Testpmd } from '../testpmd.js';
import { answer } from './answer.js';

type Matter = 'rxtx' | 'cores' | 'fwd' | 'rxoffs' | 'rxpkts' | 'rxhdrs' | 'txpkts' | 'txtimes';

const texts: Readonly<Record<Matter, (testpmd: Testpmd) => string>> = {
  rxtx: ({ settings, allPorts, forwardLcoreCount, forwardPortCount }) =>
    rxTxConfiguration(settings, allPorts, forwardLcoreCount, forwardPortCount),
  cores: ({ configuredLcores }) => forwardingCores(configuredLcores),
  fwd: ({ plan, settings }) => forwardConfiguration(plan, settings),
  rxoffs: ({ settings }) => rxOffsetConfiguration(settings),
  rxpkts: ({ settings }) => rxPacketConfiguration(settings),
  rxhdrs: ({ settings }) => rxHeaderConfiguration(settings),
  txpkts: ({ settings }) => txPacketConfiguration(settings),
  txtimes: ({ settings }) => txTimeConfiguration(settings),
};

/** What the record of each has. */
const records: Readonly<Record<Matter, (testpmd: Testpmd) => object>> = {
  rxtx: ({ settings, forwardLcores, forwardPorts }) => {
    const { forwardMode, retry, burst, rxQueues, txQueues } = settings;
    return { mode: forwardMode, retry, burst, rxQueues, txQueues, lcores: forwardLcores, ports: forwardPorts };
  },
  cores: ({ configuredLcores }) => ({ lcores: configuredLcores }),
  fwd: ({ plan }) => plan,
  rxoffs: ({ settings }) => ({ offsets: settings.rxOffsets }),
  rxpkts: ({ settings }) => ({ segments: settings.rxSegments }),
  rxhdrs: ({ settings }) => ({ headers: settings.rxHeaders }),
  txpkts: ({ settings }) => ({ segments: settings.txSegments, split: settings.txSplit }),
  txtimes: ({ settings }) => ({ interBurst: settings.txTimes[0], intraBurst: settings.txTimes[1] }),
};

export const showConfigurationCommands: readonly Command[] = [
  command(
    'show config {what:rxtx|cores|fwd|rxoffs|rxpkts|rxhdrs|txpkts|txtimes}',
    'what is set for forwarding',
    (testpmd, { what }) => answer(testpmd, `configuration-${what}`, records[what](testpmd), () => texts[what](testpmd)),
  ),
];
