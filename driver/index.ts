/** The public interface of virtio-pmd. */

export { DeviceThread, type DeviceThreadOptions } from './backend/device-thread.js';
export { EmulatedPciFunction, type EmulatedPciOptions } from './backend/emulated-pci-function.js';
export { NetDevice, type NetDeviceOptions } from './backend/net-device.js';
export type { BackendPort, BackendPortContext, BackendPortSpec } from './backend/ports/backend-port.js';
export { echoPort, pcapPort, sinkPort, sourcePort } from './backend/ports/built-in.js';
export { VhostUserServer, type VhostUserServerOptions } from './backend/vhost-user-server.js';
export { ErrorCode, VirtioError } from './errors.js';
export type { IdlePolicy } from './lcore/idle.js';
export { Burst } from './memory/burst.js';
export { macForward, swapMacs } from './memory/ethernet.js';
export { PacketField, PacketFlag } from './memory/packet-fields.js';
export { PacketPool } from './memory/packet-pool.js';
export { PacketView } from './memory/packet-view.js';
export { SpscRing } from './memory/spsc-ring.js';
export type { AttachedPort } from './net/attached-port.js';
export { type Launched, type LaunchOptions, launch } from './net/launch.js';
export type { LaunchContext } from './net/launch-worker.js';
export { createPool, Port, type PortOptions, type PortStatistics } from './net/port.js';
export { type OpenPortOptions, openPort } from './open.js';
export { PcapReader } from './pcap/pcap-reader.js';
export { PcapWriter } from './pcap/pcap-writer.js';
export { Feature, FeatureSet } from './spec/features.js';
export { PciModernTransport } from './transport/pci-modern.js';
export { VhostUserTransport } from './transport/vhost-user.js';
