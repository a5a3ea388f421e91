/** The public interface of virtio-pmd. */

export type { RingStatistics } from './backend/counters.js';
export { DeviceThread, type DeviceThreadOptions } from './backend/device-thread.js';
export type { EmulatedFaults, EmulatedRegion } from './backend/emulated-faults.js';
export { EmulatedPciFunction, type EmulatedPciOptions } from './backend/emulated-pci-function.js';
export {
  HOST_THREAD_BYTES,
  HostPort,
  type HostPortOptions,
  type HostPortThread,
  type HostQueues,
} from './backend/host-port.js';
export { AttachedHostPort, type HostThreadContext } from './backend/host-thread.js';
export { NetDevice, type NetDeviceOptions } from './backend/net-device.js';
export type {
  BackendPort,
  BackendPortContext,
  BackendPortModule,
  BackendPortSpec,
} from './backend/ports/backend-port.js';
export {
  echoPort,
  icmpEchoPort,
  pcapPort,
  sinkPort,
  sourcePort,
  switchPort,
  switchUplinkPort,
  tapPort,
} from './backend/ports/built-in.js';
export { CapturePackets } from './backend/ports/capture-packets.js';
export { PingResponder } from './backend/ports/ping-responder.js';
export { CountedPort, countersOf } from './backend/ports/port-counters.js';
export { TAP_BURST, TapDevice } from './backend/ports/tap-device.js';
export { createSwitchFabric, type SwitchFabric } from './backend/switch/fabric.js';
export type { ConnectionDescription } from './backend/vhost-user-description.js';
export type { ServerEvent } from './backend/vhost-user-events.js';
export { VhostUserServer, type VhostUserServerOptions } from './backend/vhost-user-server.js';
export { ErrorCode, VirtioError } from './errors.js';
export type { LcoreContext } from './lcore/context.js';
export { Idle, type IdlePolicy } from './lcore/idle.js';
export { Lcore, type LcoreOptions } from './lcore/lcore.js';
export { Burst } from './memory/burst.js';
export { DmaMemory } from './memory/dma-memory.js';
export { macForward, swapMacs } from './memory/ethernet.js';
export { addToSum, checksumOf } from './memory/internet-checksum.js';
export { PacketBytes } from './memory/packet-bytes.js';
export { OVERSIZE_FLAGS, PacketField, PacketFlag } from './memory/packet-fields.js';
export { PacketPool } from './memory/packet-pool.js';
export { PacketView } from './memory/packet-view.js';
export { SpscRing } from './memory/spsc-ring.js';
export type { AttachedPort, PortHandle } from './net/attached-port.js';
export type { CoalescedQueues } from './net/control-coalescing.js';
export type { CoalescingSettings, HashSettings, RssSettings } from './net/control-requests.js';
export type { DeviceCounters, DeviceStatistics } from './net/control-statistics.js';
export type { RssLimits } from './net/control-steering.js';
export { createPool } from './net/create-pool.js';
export { type ExtendedStatistic, ofTallies } from './net/extended-statistics.js';
export { type Launched, type LaunchOptions, launch } from './net/launch.js';
export type { LaunchContext } from './net/launch-worker.js';
export { createTallies, type PacketTally, packetsOf, packetTally, talliesOf } from './net/packet-tally.js';
export type { PacketWaitOptions } from './net/packet-wait.js';
export { Port } from './net/port.js';
export type { PortControl, ReceiveMode } from './net/port-control.js';
export type { PortInfo } from './net/port-info.js';
export { type PortMemory, portMemory } from './net/port-memory.js';
export type { OffloadName, OffloadOutcome, PortOffloads } from './net/port-offloads.js';
export type { PortEvents, PortInterrupts, PortOptions, PortState, PortStatistics } from './net/port-options.js';
export type { QueueDirection, QueueStartOptions } from './net/port-queue-control.js';
export { attachToPort, type OnRequest, remotePort } from './net/port-requests.js';
export type { PortRxQueue } from './net/port-rx-queue.js';
export type { PortSetting } from './net/port-settings.js';
export type { QueueTaker, RemotePort } from './net/port-threads.js';
export type { PortTxQueue } from './net/port-tx-queue.js';
export type { PortLink } from './net/port-watch.js';
export type { DescriptorStatus, QueueInfo, RingStand } from './net/queue-info.js';
export { OffloadRequests } from './offload/request.js';
export { insertTag, stripTag } from './offload/vlan.js';
export { type OpenPortOptions, openPort, type PciAccess, probePciDevice } from './open.js';
export { PacketDirection } from './pcap/format.js';
export { PcapReader } from './pcap/pcap-reader.js';
export { PcapWriter } from './pcap/pcap-writer.js';
export { type CaptureInterface, createPcapng, PcapngWriter } from './pcap/pcapng-writer.js';
export {
  bindFunction,
  type NetworkFunction,
  networkFunctions,
  type PciRoots,
  unbindFunction,
} from './pci/binding.js';
export { type DeviceFacts, readDeviceFacts } from './pci/device-facts.js';
export { libc } from './pci/libc.js';
export { parsePciAddress } from './pci/pci-address.js';
export { caps } from './spec/caps.js';
export { dropUnmetRequirements, Feature, FeatureSet } from './spec/features.js';
export {
  ARP_HARDWARE_ETHERNET,
  ArpOperation,
  ArpPacket,
  EthernetHeader,
  EtherType,
  IcmpHeader,
  IcmpType,
  IPV4_FRAGMENT_MASK,
  IpProtocol,
  Ipv4Header,
  Ipv6Header,
  TcpHeader,
  UdpHeader,
  VLAN_TAG_BYTES,
} from './spec/internet.js';
export { HashType } from './spec/net-config.js';
export { PciLegacyTransport } from './transport/pci-legacy.js';
export { PciModernTransport } from './transport/pci-modern.js';
export { VhostKernelTransport } from './transport/vhost-kernel.js';
export { KernelTap } from './transport/vhost-kernel-tap.js';
export { VhostUserTransport } from './transport/vhost-user.js';

// Types of what those take and return, for programs that name them.

export type { RingDropReason } from './backend/counters.js';
export type { DeviceEvent, DeviceModel, GuestRegion, IotlbEntry, RingSetup } from './backend/device-model.js';
export type { EmulatedInterface } from './backend/emulated-config-space.js';
export type { EchoOptions } from './backend/ports/echo.js';
export type { IcmpEchoOptions } from './backend/ports/icmpecho.js';
export type { PcapOptions } from './backend/ports/pcap.js';
export type { SinkOptions } from './backend/ports/sink.js';
export type { SourceOptions } from './backend/ports/source.js';
export type { SwitchOptions } from './backend/ports/switch.js';
export type { SwitchUplinkOptions } from './backend/ports/switch-uplink.js';
export type { TapOptions } from './backend/ports/tap.js';
export type { TapDeviceOptions } from './backend/ports/tap-device.js';
export type { TestProtocol } from './backend/ports/test-packet.js';
export type { MacTableOptions } from './backend/switch/mac-table.js';
export type {
  FeatureDescription,
  NextMove,
  RegionDescription,
  RingDescription,
} from './backend/vhost-user-description.js';
export type { ConnectionEvent, ErrorEvent, Outcome } from './backend/vhost-user-events.js';
export type { VhostUserClientOptions } from './backend/vhost-user-server.js';
export type { ErrorDetails } from './errors.js';
export type { StopFlag } from './lcore/command-word.js';
export type { InterruptIdle, WakeSource } from './lcore/interrupt-idle.js';
export type { DmaMemoryOptions, PageChoice } from './memory/dma-memory.js';
export type { PacketPoolOptions } from './memory/packet-pool.js';
export type { CreatePoolOptions } from './net/create-pool.js';
export type { FeatureOutcome, Negotiation } from './net/negotiation.js';
export type { Bounds } from './net/port-info.js';
export type { DropReason, QueueStatistics } from './net/statistics.js';
export type { LoopbackDeviceOptions } from './open.js';
export type { CapturedPacket } from './pcap/captured-packet.js';
export type { PcapWriterOptions } from './pcap/pcap-writer.js';
export type { PacketOrigin } from './pcap/pcapng-writer.js';
export type { Bar, Doorbell, MemoryRange, PciFunction } from './spec/pci-function.js';
export type {
  InterruptKind,
  InterruptPlan,
  OfferedFeatures,
  QueueAddresses,
  Transport,
  TransportEvent,
} from './spec/transport.js';
export { ProtocolFeature } from './spec/vhost-user.js';
export type { PciLegacyOptions } from './transport/pci-legacy.js';
export type { PciModernOptions } from './transport/pci-modern.js';
export type { VhostKernelTransportOptions } from './transport/vhost-kernel-options.js';
export type { KernelTapOptions } from './transport/vhost-kernel-tap.js';
export type { VhostUserTransportOptions } from './transport/vhost-user-options.js';
export type { Iova } from './units.js';
