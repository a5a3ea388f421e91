/**
 * What the code on poll threads needs, and nothing else: a thread that imports `virtio-pmd/thread` has loaded in a third of the
 * time. All of it is in `virtio-pmd` too.
 */

export type { BackendPort, BackendPortContext } from './backend/ports/backend-port.js';
export { PingResponder } from './backend/ports/ping-responder.js';
export { countersOf } from './backend/ports/port-counters.js';
export { ErrorCode, VirtioError } from './errors.js';
export type { LcoreContext } from './lcore/context.js';
export { Idle, type IdlePolicy } from './lcore/idle.js';
export { Burst } from './memory/burst.js';
export { DmaMemory } from './memory/dma-memory.js';
export { macForward, swapMacs } from './memory/ethernet.js';
export { addToSum, checksumOf } from './memory/internet-checksum.js';
export { PacketBytes } from './memory/packet-bytes.js';
export { OVERSIZE_FLAGS, PacketField, PacketFlag } from './memory/packet-fields.js';
export { PacketPool } from './memory/packet-pool.js';
export { PacketView } from './memory/packet-view.js';
export { SpscRing } from './memory/spsc-ring.js';
export type { AttachedPort } from './net/attached-port.js';
export type { LaunchContext } from './net/launch-worker.js';
export type { PacketWaitOptions } from './net/packet-wait.js';
export type { PortRxQueue } from './net/port-rx-queue.js';
export type { PortTxQueue } from './net/port-tx-queue.js';
export { OffloadRequests } from './offload/request.js';
export { PcapReader } from './pcap/pcap-reader.js';
export { PcapWriter } from './pcap/pcap-writer.js';
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
