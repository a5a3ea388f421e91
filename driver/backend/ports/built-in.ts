/** The ports that come with the back-end, by name. */

import { type SwitchCounterName, switchCounters } from '../switch/switch-counters.js';
import type { BackendPortSpec } from './backend-port.js';
import type { EchoOptions } from './echo.js';
import { type EchoCounter, echoCounters } from './echo-outcome.js';
import type { IcmpEchoOptions } from './icmpecho.js';
import type { PcapOptions } from './pcap.js';
import { type PcapCounter, pcapCounters } from './pcap-counters.js';
import { CountedPort } from './port-counters.js';
import type { SinkOptions } from './sink.js';
import type { SourceOptions } from './source.js';
import { type StreamCounter, streamCounters } from './stream-counters.js';
import type { SwitchOptions } from './switch.js';
import type { SwitchUplinkOptions } from './switch-uplink.js';
import type { TapOptions } from './tap.js';
import { type TapCounter, tapCounters } from './tap-counters.js';

const moduleUrl = (name: string): string => new URL(`./${name}.js`, import.meta.url).href;

/** Module of each built-in port. */
export const builtInPorts = {
  echo: moduleUrl('echo'),
  icmpecho: moduleUrl('icmpecho'),
  sink: moduleUrl('sink'),
  source: moduleUrl('source'),
  pcap: moduleUrl('pcap'),
  switch: moduleUrl('switch'),
  switchUplink: moduleUrl('switch-uplink'),
  tap: moduleUrl('tap'),
} as const;

export const echoPort = (options: EchoOptions = {}): BackendPortSpec => ({ module: builtInPorts.echo, options });
/** Answers ARP, ping and IPv6 neighbour discovery for any address. */
export const icmpEchoPort = (options: Omit<IcmpEchoOptions, 'counters'> = {}): CountedPort<EchoCounter> =>
  new CountedPort(builtInPorts.icmpecho, options, echoCounters);
export const sinkPort = (options: Omit<SinkOptions, 'counters'> = {}): CountedPort<StreamCounter> =>
  new CountedPort(builtInPorts.sink, options, streamCounters);
export const sourcePort = (options: Omit<SourceOptions, 'counters'> = {}): CountedPort<StreamCounter> =>
  new CountedPort(builtInPorts.source, options, streamCounters);
export const pcapPort = (options: Omit<PcapOptions, 'counters'>): CountedPort<PcapCounter> =>
  new CountedPort(builtInPorts.pcap, options, pcapCounters);
/** Told apart by this number: members of a switch that is on several threads. */
let members = 0;

/**
 * Makes the guest a member of a learning switch: devices that name the same one are connected, those of one thread, or with
 * `fabric` (`createSwitchFabric`) those of several. Each device has one of its own.
 */
export const switchPort = (
  options: Omit<SwitchOptions, 'counters' | 'identity'> = {},
): CountedPort<SwitchCounterName> =>
  new CountedPort(builtInPorts.switch, { ...options, identity: ++members }, switchCounters);
/** Makes a tap interface a member of a switch: for a device without front-end, on one thread. */
export const switchUplinkPort = (
  options: Omit<SwitchUplinkOptions, 'counters' | 'identity'>,
): CountedPort<SwitchCounterName> =>
  new CountedPort(builtInPorts.switchUplink, { ...options, identity: ++members }, switchCounters);
/** Connects the guest with a tap interface of the host's kernel. */
export const tapPort = (options: Omit<TapOptions, 'counters'>): CountedPort<TapCounter> =>
  new CountedPort(builtInPorts.tap, options, tapCounters);
