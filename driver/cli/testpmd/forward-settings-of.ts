/** What the forward engines are made from: the settings and ports of the application as plain data. */

import type { ForwardSettings, PortForwardSettings } from './lcore/forward-settings.js';
import type { TestPort } from './test-port.js';
import type { Testpmd } from './testpmd.js';

export function forwardSettingsOf({ settings, forwarding, allPorts }: Testpmd): ForwardSettings {
  return {
    mode: settings.forwardMode,
    retries: settings.retry,
    retryDelayUs: settings.burstTxDelay,
    retryCount: settings.burstTxRetries,
    burst: settings.burst,
    verbose: settings.verbose,
    recordsBursts: settings.recordBurstStats,
    cyclesPerMs: settings.recordCoreCycles ? forwarding.clockMHz * 1000 : 0,
    segmentBytes: settings.txSegments,
    segmentSplit: settings.txSplit,
    txSourceIp: settings.txIpSource,
    txDestinationIp: settings.txIpDestination,
    txSourcePort: settings.txUdpSource,
    txDestinationPort: settings.txUdpDestination,
    txMultiFlow: settings.txMultiFlow,
    flowgenFlows: settings.flowgenFlows,
    flowgenClones: settings.flowgenClones,
    noisy: {
      bufferPackets: settings.noisyBufferPackets,
      flushMs: settings.noisyFlushTime,
      memoryMiB: settings.noisyMemoryMegabytes,
      reads: settings.noisyReads,
      writes: settings.noisyWrites,
      readWrites: settings.noisyReadsWrites,
    },
    ports: new Map(allPorts.map((port) => [port.id, settingsOfPort(port, settings.peerAddress(port.id))])),
  };
}

const settingsOfPort = (port: TestPort, peerAddress: Uint8Array): PortForwardSettings => ({
  macAddress: port.macAddress,
  peerAddress,
  rxOffloads: port.rxOffloads,
  txOffloads: port.txOffloads,
  txVlan: port.txVlan,
  tsoSegmentBytes: port.tsoSegment,
  tunnelTsoSegmentBytes: port.tunnelTsoSegment,
  parsesTunnels: port.parseTunnel,
  swapsMacs: port.swapsMacs,
});
