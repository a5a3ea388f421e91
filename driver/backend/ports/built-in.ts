/** The ports that come with the back-end, by name. */

import type { BackendPortSpec } from './backend-port.js';
import type { EchoOptions } from './echo.js';
import type { PcapOptions } from './pcap.js';
import type { SourceOptions } from './source.js';

const moduleUrl = (name: string): string => new URL(`./${name}.js`, import.meta.url).href;

/** Module of each built-in port. */
export const builtInPorts = {
  echo: moduleUrl('echo'),
  sink: moduleUrl('sink'),
  source: moduleUrl('source'),
  pcap: moduleUrl('pcap'),
} as const;

export const echoPort = (options: EchoOptions = {}): BackendPortSpec => ({ module: builtInPorts.echo, options });
export const sinkPort = (): BackendPortSpec => ({ module: builtInPorts.sink, options: {} });
export const sourcePort = (options: SourceOptions = {}): BackendPortSpec => ({ module: builtInPorts.source, options });
export const pcapPort = (options: PcapOptions): BackendPortSpec => ({ module: builtInPorts.pcap, options });
