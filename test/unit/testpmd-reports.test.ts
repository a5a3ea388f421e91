/**
 * What testpmd's reports look like: every text that is expected here was printed by DPDK 22.11.11's dpdk-testpmd, with ports
 * and counters as they are given.
 */

import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { planForwarding } from '../../driver/cli/testpmd/forward-plan.js';
import { BurstCounter, StreamCounter } from '../../driver/cli/testpmd/lcore/stream.js';
import { burstSpread } from '../../driver/cli/testpmd/reports/burst-spread.js';
import { checksumOffloads } from '../../driver/cli/testpmd/reports/checksum-offloads.js';
import { deviceInfo } from '../../driver/cli/testpmd/reports/device-info.js';
import {
  forwardConfiguration,
  forwardingCores,
  rxTxConfiguration,
} from '../../driver/cli/testpmd/reports/forward-configuration.js';
import { type ForwardStatistics, forwardStatistics } from '../../driver/cli/testpmd/reports/forward-statistics.js';
import { macAddresses, multicastAddresses } from '../../driver/cli/testpmd/reports/mac-addresses.js';
import { offloadCapabilities, offloadConfiguration } from '../../driver/cli/testpmd/reports/offloads.js';
import {
  rxHeaderConfiguration,
  rxOffsetConfiguration,
  rxPacketConfiguration,
  txPacketConfiguration,
  txTimeConfiguration,
} from '../../driver/cli/testpmd/reports/packet-configuration.js';
import { portInfo, portSummary, portSummaryHead } from '../../driver/cli/testpmd/reports/port-info.js';
import { extendedStatistics, portStatistics } from '../../driver/cli/testpmd/reports/port-statistics.js';
import { PortMeter } from '../../driver/cli/testpmd/reports/rates.js';
import { redirectionTable, rssHash, tableMasks } from '../../driver/cli/testpmd/reports/rss.js';
import { supportedRssTypes } from '../../driver/cli/testpmd/reports/rss-types.js';
import { segmentation } from '../../driver/cli/testpmd/reports/segmentation.js';
import { Settings } from '../../driver/cli/testpmd/settings.js';
import { noStatistics, toldPort } from '../support/told-device.js';

const test = suite('testpmd reports');

test('show port info: a virtio-user port with two queue pairs', () => {
  const port = toldPort(0, { devargs: 'path=/run/w.sock,mac=00:01:02:03:04:05,queues=2' });
  port.promiscuous = true;
  assert.equal(
    portInfo(port),
    `
********************* Infos for port 0  *********************
MAC address: 00:01:02:03:04:05
Device name: net_virtio_user0
Driver name: net_virtio_user
Firmware-version: not available
Devargs: path=/run/w.sock,mac=00:01:02:03:04:05,queues=2
Connect to socket: 0
memory allocation on the socket: 0
Link status: up
Link speed: Unknown
Link duplex: full-duplex
Autoneg status: On
MTU: 1500
Promiscuous mode: enabled
Allmulticast mode: disabled
Maximum number of MAC addresses: 64
Maximum number of MAC addresses of hash filtering: 0
VLAN offload: 
  strip off, filter off, extend off, qinq strip off
No RSS offload flow type is supported.
Minimum size of RX buffer: 64
Maximum configurable length of RX packet: 9728
Maximum configurable size of LRO aggregated packet: 0
Current number of RX queues: 2
Max possible RX queues: 2
Max possible number of RXDs per queue: 32768
Min possible number of RXDs per queue: 32
RXDs number alignment: 1
Current number of TX queues: 2
Max possible TX queues: 2
Max possible number of TXDs per queue: 32768
Min possible number of TXDs per queue: 32
TXDs number alignment: 1
Max segment number per packet: 65535
Max segment number per MTU/TSO: 65535
Device capabilities: 0x0( )
Device error handling mode: none
`,
  );
});

test('show port info: what a device hashes stands in lines of 63 characters', () => {
  // net_null, then net_tap.
  assert.equal(
    supportedRssTypes(0x2003ffffcn),
    `  ipv4  ipv4-frag  ipv4-tcp  ipv4-udp  ipv4-sctp  ipv4-other
  ipv6  ipv6-frag  ipv6-tcp  ipv6-udp  ipv6-sctp  ipv6-other
  l2-payload  ipv6-ex  ipv6-tcp-ex  ipv6-udp-ex  port  vxlan
  geneve  nvgre  mpls
`,
  );
  assert.equal(
    supportedRssTypes(0x3afbcn),
    `  ipv4  ipv4-frag  ipv4-tcp  ipv4-udp  ipv4-other  ipv6
  ipv6-frag  ipv6-tcp  ipv6-udp  ipv6-other  ipv6-ex
  ipv6-tcp-ex  ipv6-udp-ex
`,
  );
});

test('show port summary', () => {
  const port = toldPort(0);
  const text = portSummaryHead(1) + portSummary(port);
  assert.equal(
    text,
    `Number of available ports: 1
Port MAC Address       Name         Driver         Status   Link
0    00:01:02:03:04:05 net_virtio_user0 net_virtio_user up       Unknown
`,
  );
});

test('show port stats: rates since the last show, and those of --display-xstats', () => {
  let now = 1000;
  const meter = new PortMeter(() => now);
  const before = { ...noStatistics, rxPackets: 1000, rxBytes: 64_000, txPackets: 500, txBytes: 32_000 };
  assert.equal(
    meter.next(before),
    { rxPackets: 0, rxBits: 0, txPackets: 0, txBits: 0 },
    'the first show knows no rate',
  );
  now += 2000;
  const after = { ...before, rxPackets: 3000, rxBytes: 192_000, txPackets: 400 };
  const rates = meter.next(after);
  assert.equal(
    rates,
    { rxPackets: 1000, rxBits: 512_000, txPackets: 0, txBits: 0 },
    'a counter that was reset has none',
  );
  const statistics = { ...noStatistics, rxPackets: 7_482_048, txPackets: 6_675_136 };
  const shown = { rxPackets: 4_988_584, rxBits: 0, txPackets: 4_988_584, txBits: 0 };
  const displayed = [
    { name: 'rx_good_packets', value: 7_482_048, rate: 4_985_980 },
    { name: 'tx_q0_packets', value: 3_337_568, rate: 2_492_990 },
  ];
  assert.equal(
    portStatistics(0, statistics, shown, displayed),
    `
  ######################## NIC statistics for port 0  ########################
  RX-packets: 7482048    RX-missed: 0          RX-bytes:  0
  RX-errors: 0
  RX-nombuf:  0         
  TX-packets: 6675136    TX-errors: 0          TX-bytes:  0

  Throughput (since last show)
  Rx-pps:      4988584          Rx-bps:            0
  Tx-pps:      4988584          Tx-bps:            0

                               Value            Rate (since last show)
  rx_good_packets               7482048         4985980
  tx_q0_packets                 3337568         2492990
  ############################################################################
`,
  );
});

test('show port xstats: zeroes are hidden where that is set', () => {
  const values = [
    { name: 'rx_good_packets', value: 0 },
    { name: 'tx_good_packets', value: 7 },
  ];
  assert.is(extendedStatistics(values, false), 'rx_good_packets: 0\ntx_good_packets: 7\n');
  assert.is(extendedStatistics(values, true), 'tx_good_packets: 7\n');
});

/** Two ports with two queues, as a run of net_null ports left them. */
function nullRun(mode: string): ForwardStatistics {
  const counters = new Float64Array(BurstCounter.END);
  counters[StreamCounter.RX_PACKETS] = 3_337_568;
  counters[StreamCounter.TX_PACKETS] = 3_337_568;
  counters[StreamCounter.BUSY_CYCLES] = 1_330_832_213 / 4;
  counters[BurstCounter.RX + 32] = 104_299;
  counters[BurstCounter.TX + 32] = 104_299;
  const shape = { forwardMode: 'io', topology: 'paired', rxQueues: 2, txQueues: 2 } as const;
  const { streams } = planForwarding(shape, [0, 1], [1]);
  const statistics = { ...noStatistics, rxPackets: 6_675_136, txPackets: 6_675_136 };
  return {
    mode,
    ports: [0, 1].map((id) => ({ id, statistics })),
    streams: streams.map((setup) => ({ setup, counters })),
    showsBursts: true,
    clockMHz: 2600,
  };
}

test('show fwd stats all: streams, ports, sums, bursts and cycles', () => {
  assert.equal(
    forwardStatistics(nullRun('io')),
    `
  ------- Forward Stats for RX Port= 0/Queue= 0 -> TX Port= 1/Queue= 0 -------
  RX-packets: 3337568        TX-packets: 3337568        TX-dropped: 0             
  RX-bursts : 104299 [0% of 0 pkts + 100% of 32 pkts]
  TX-bursts : 104299 [0% of 0 pkts + 100% of 32 pkts]

  ------- Forward Stats for RX Port= 1/Queue= 0 -> TX Port= 0/Queue= 0 -------
  RX-packets: 3337568        TX-packets: 3337568        TX-dropped: 0             
  RX-bursts : 104299 [0% of 0 pkts + 100% of 32 pkts]
  TX-bursts : 104299 [0% of 0 pkts + 100% of 32 pkts]

  ------- Forward Stats for RX Port= 0/Queue= 1 -> TX Port= 1/Queue= 1 -------
  RX-packets: 3337568        TX-packets: 3337568        TX-dropped: 0             
  RX-bursts : 104299 [0% of 0 pkts + 100% of 32 pkts]
  TX-bursts : 104299 [0% of 0 pkts + 100% of 32 pkts]

  ------- Forward Stats for RX Port= 1/Queue= 1 -> TX Port= 0/Queue= 1 -------
  RX-packets: 3337568        TX-packets: 3337568        TX-dropped: 0             
  RX-bursts : 104299 [0% of 0 pkts + 100% of 32 pkts]
  TX-bursts : 104299 [0% of 0 pkts + 100% of 32 pkts]

  ---------------------- Forward statistics for port 0  ----------------------
  RX-packets: 6675136        RX-dropped: 0             RX-total: 6675136
  TX-packets: 6675136        TX-dropped: 0             TX-total: 6675136
  ----------------------------------------------------------------------------

  ---------------------- Forward statistics for port 1  ----------------------
  RX-packets: 6675136        RX-dropped: 0             RX-total: 6675136
  TX-packets: 6675136        TX-dropped: 0             TX-total: 6675136
  ----------------------------------------------------------------------------

  +++++++++++++++ Accumulated forward statistics for all ports+++++++++++++++
  RX-packets: 13350272       RX-dropped: 0             RX-total: 13350272
  TX-packets: 13350272       TX-dropped: 0             TX-total: 13350272
  ++++++++++++++++++++++++++++++++++++++++++++++++++++++++++++++++++++++++++++

  CPU cycles/packet=99.69 (total cycles=1330832213 / total io packets=13350272) at 2600 MHz Clock
`,
  );
});

test('stop in mode csum: bad checksums of each stream and port', () => {
  assert.equal(
    forwardStatistics(nullRun('csum')),
    `
  ------- Forward Stats for RX Port= 0/Queue= 0 -> TX Port= 1/Queue= 0 -------
  RX-packets: 3337568        TX-packets: 3337568        TX-dropped: 0               RX- bad IP checksum: 0               Rx- bad L4 checksum: 0              Rx- bad outer L4 checksum: 0             
 RX- bad outer IP checksum: 0             
  RX-bursts : 104299 [0% of 0 pkts + 100% of 32 pkts]
  TX-bursts : 104299 [0% of 0 pkts + 100% of 32 pkts]

  ------- Forward Stats for RX Port= 1/Queue= 0 -> TX Port= 0/Queue= 0 -------
  RX-packets: 3337568        TX-packets: 3337568        TX-dropped: 0               RX- bad IP checksum: 0               Rx- bad L4 checksum: 0              Rx- bad outer L4 checksum: 0             
 RX- bad outer IP checksum: 0             
  RX-bursts : 104299 [0% of 0 pkts + 100% of 32 pkts]
  TX-bursts : 104299 [0% of 0 pkts + 100% of 32 pkts]

  ------- Forward Stats for RX Port= 0/Queue= 1 -> TX Port= 1/Queue= 1 -------
  RX-packets: 3337568        TX-packets: 3337568        TX-dropped: 0               RX- bad IP checksum: 0               Rx- bad L4 checksum: 0              Rx- bad outer L4 checksum: 0             
 RX- bad outer IP checksum: 0             
  RX-bursts : 104299 [0% of 0 pkts + 100% of 32 pkts]
  TX-bursts : 104299 [0% of 0 pkts + 100% of 32 pkts]

  ------- Forward Stats for RX Port= 1/Queue= 1 -> TX Port= 0/Queue= 1 -------
  RX-packets: 3337568        TX-packets: 3337568        TX-dropped: 0               RX- bad IP checksum: 0               Rx- bad L4 checksum: 0              Rx- bad outer L4 checksum: 0             
 RX- bad outer IP checksum: 0             
  RX-bursts : 104299 [0% of 0 pkts + 100% of 32 pkts]
  TX-bursts : 104299 [0% of 0 pkts + 100% of 32 pkts]

  ---------------------- Forward statistics for port 0  ----------------------
  RX-packets: 6675136        RX-dropped: 0             RX-total: 6675136
  Bad-ipcsum: 0              Bad-l4csum: 0             Bad-outer-l4csum: 0             
  Bad-outer-ipcsum: 0             
  TX-packets: 6675136        TX-dropped: 0             TX-total: 6675136
  ----------------------------------------------------------------------------

  ---------------------- Forward statistics for port 1  ----------------------
  RX-packets: 6675136        RX-dropped: 0             RX-total: 6675136
  Bad-ipcsum: 0              Bad-l4csum: 0             Bad-outer-l4csum: 0             
  Bad-outer-ipcsum: 0             
  TX-packets: 6675136        TX-dropped: 0             TX-total: 6675136
  ----------------------------------------------------------------------------

  +++++++++++++++ Accumulated forward statistics for all ports+++++++++++++++
  RX-packets: 13350272       RX-dropped: 0             RX-total: 13350272
  TX-packets: 13350272       TX-dropped: 0             TX-total: 13350272
  ++++++++++++++++++++++++++++++++++++++++++++++++++++++++++++++++++++++++++++

  CPU cycles/packet=99.69 (total cycles=1330832213 / total csum packets=13350272) at 2600 MHz Clock
`,
  );
});

test('show fwd stats all: drops count what streams freed and what devices failed to send, errors are shown when there are some', () => {
  const run = nullRun('io');
  const [first] = run.streams;
  if (first === undefined) throw new Error('there is a stream');
  const counters = first.counters.slice();
  counters[StreamCounter.FWD_DROPPED] = 5;
  const [port] = run.ports;
  const statistics = {
    ...noStatistics,
    rxPackets: 10,
    rxMissed: 2,
    rxErrors: 1,
    rxNoBuffer: 3,
    txPackets: 7,
    txErrors: 4,
  };
  const text = forwardStatistics({
    ...run,
    ports: [{ id: port?.id ?? 0, statistics }],
    streams: [{ setup: { ...first.setup, rxPort: 0, txPort: 0 }, counters }],
    showsBursts: false,
    clockMHz: undefined,
  });
  const lines = text.split('\n');
  assert.ok(lines.includes('  RX-packets: 10             RX-dropped: 2             RX-total: 12'));
  assert.ok(lines.includes('  RX-error: 1'));
  assert.is(lines.filter((line) => line === '  RX-nombufs: 3             ').length, 2, 'of the port, and of all');
  assert.is(
    lines.filter((line) => line === '  TX-packets: 7              TX-dropped: 9             TX-total: 16').length,
    2,
    'of the port, and of all',
  );
});

test('record-burst-stats: nothing, the two most frequent sizes, others', () => {
  const bursts = new Float64Array(BurstCounter.SIZES);
  assert.is(burstSpread(bursts), undefined, 'no burst, no line');
  bursts[0] = 70;
  assert.is(burstSpread(bursts), '70 [100% of 0 pkts]');
  bursts[32] = 20;
  bursts[4] = 5;
  assert.is(burstSpread(bursts), '95 [73% of 0 pkts + 21% of 32 pkts + 6% of 4 pkts]');
  bursts[7] = 5;
  assert.is(burstSpread(bursts), '100 [70% of 0 pkts + 20% of 32 pkts + 5% of 4 pkts + 5% of other]');
});

test('show port P rx_offload and tx_offload', () => {
  const port = toldPort(0);
  const info = port.device.info();
  assert.equal(
    offloadCapabilities(0, 'rx', info),
    `Rx Offloading Capabilities of port 0 :
  Per Queue :
  Per Port  : VLAN_STRIP UDP_CKSUM TCP_CKSUM TCP_LRO SCATTER

`,
  );
  assert.equal(
    offloadCapabilities(0, 'tx', info),
    `Tx Offloading Capabilities of port 0 :
  Per Queue :
  Per Port  : VLAN_INSERT UDP_CKSUM TCP_CKSUM MULTI_SEGS

`,
  );
  for (const queue of port.txQueues) queue.offloads = 0x8n;
  assert.equal(
    offloadConfiguration(port, 'tx'),
    `Tx Offloading Configuration of port 0 :
  Port :
  Queue[ 0] : TCP_CKSUM
  Queue[ 1] : TCP_CKSUM

`,
    'what is set for queues counts from the next start on',
  );
});

test('show config fwd, rxtx and cores', () => {
  const settings = new Settings();
  const shape = { forwardMode: 'io', topology: 'paired', rxQueues: 2, txQueues: 2 } as const;
  assert.equal(
    forwardConfiguration(planForwarding(shape, [0], [1]), settings),
    `io packet forwarding - ports=1 - cores=1 - streams=2 - NUMA support enabled, MP allocation mode: native
Logical Core 1 (socket 0) forwards packets on 2 streams:
  RX P=0/Q=0 (socket 0) -> TX P=0/Q=0 (socket 0) peer=02:00:00:00:00:00
  RX P=0/Q=1 (socket 0) -> TX P=0/Q=1 (socket 0) peer=02:00:00:00:00:00

`,
  );
  settings.rxQueues = 2;
  settings.txQueues = 2;
  assert.equal(
    rxTxConfiguration(settings, [toldPort(0)], 1, 1),
    `  io packet forwarding packets/burst=32
  nb forwarding cores=1 - nb forwarding ports=1
  port 0: RX queue number: 2 Tx queue number: 2
    Rx offloads=0x0 Tx offloads=0x0
    RX queue: 0
      RX desc=0 - RX free threshold=0
      RX threshold registers: pthresh=0 hthresh=0  wthresh=0
      RX Offloads=0x0
    TX queue: 0
      TX desc=0 - TX free threshold=0
      TX threshold registers: pthresh=0 hthresh=0  wthresh=0
      TX offloads=0x0 - TX RS bit threshold=0
`,
  );
  assert.is(
    forwardingCores([1]),
    `List of forwarding lcores:  1
`,
  );
});

test('show config txpkts, txtimes, rxoffs, rxpkts, rxhdrs', () => {
  const settings = new Settings();
  assert.is(
    txPacketConfiguration(settings),
    `Number of segments: 1
Segment sizes: 64
Split packet: off
`,
  );
  assert.is(
    rxOffsetConfiguration(settings),
    `Number of offsets: 0
`,
  );
  assert.is(
    rxPacketConfiguration(settings),
    `Number of segments: 0
`,
  );
  assert.is(
    rxHeaderConfiguration(settings),
    `Number of segments: 0
`,
  );
  settings.txSegments = [64, 64];
  settings.txSplit = 'rand';
  settings.txTimes = [10, 20];
  settings.rxOffsets = [10, 20];
  assert.is(
    txPacketConfiguration(settings),
    `Number of segments: 2
Segment sizes: 64,64
Split packet: rand
`,
  );
  assert.is(
    txTimeConfiguration(settings),
    `Interburst gap: 10
Intraburst gap: 20
`,
  );
  assert.is(
    rxOffsetConfiguration(settings),
    `Number of offsets: 2
Segment offsets: 10,0
`,
    'testpmd has no length for the last one yet',
  );
  settings.rxSegments = [64, 128];
  assert.is(
    rxPacketConfiguration(settings),
    `Number of segments: 2
Segment sizes: 64,128
`,
  );
  settings.rxSegments = [64, 128, 0];
  settings.rxHeaders = ['eth', 'ipv4'];
  assert.is(
    rxHeaderConfiguration(settings),
    `Number of segments: 3
Packet segs: eth, ipv4, payload
`,
  );
});

test('csum show and tso show', () => {
  const port = toldPort(0);
  port.txOffloads = 0x8n;
  assert.equal(
    checksumOffloads(port),
    `Parse tunnel is off
IP checksum offload is sw
UDP checksum offload is sw
TCP checksum offload is hw
SCTP checksum offload is sw
Outer-Ip checksum offload is sw
Outer-Udp checksum offload is sw
`,
  );
  assert.is(
    segmentation(port),
    `TSO for non-tunneled packets is disabled
`,
  );
  port.tsoSegment = 800;
  assert.is(segmentation(port), undefined, 'the device cannot');
});

test('show port P macs and mcast_macs', () => {
  const port = toldPort(0);
  assert.is(
    macAddresses(port),
    `Number of MAC address added: 1
  00:01:02:03:04:05
`,
  );
  assert.is(
    multicastAddresses(port),
    `Number of Multicast MAC address added: 0
`,
  );
});

test('show device info', () => {
  const port = toldPort(0, { devargs: 'path=/run/w.sock,mac=00:01:02:03:04:05,queues=2' });
  assert.equal(
    deviceInfo(port),
    `
********************* Infos for device net_virtio_user0 *********************
Bus name: vdev
Bus information: 
Driver name: net_virtio_user
Devargs: path=/run/w.sock,mac=00:01:02:03:04:05,queues=2
Connect to socket: -1

	Port id: 0 
	MAC address: 00:01:02:03:04:05
	Device name: net_virtio_user0
	Device speed capability: Autonegotiate (all speeds)
`,
  );
});

test('show port P rss reta: one mask for 64 entries', () => {
  const table = Array.from({ length: 128 }, (_, entry) => entry % 2);
  const masks = tableMasks('(0x3,0x1)');
  assert.is(
    redirectionTable(table, masks ?? []),
    [
      'RSS RETA configuration: hash index=0, queue=0\n',
      'RSS RETA configuration: hash index=1, queue=1\n',
      'RSS RETA configuration: hash index=64, queue=0\n',
    ].join(''),
  );
  assert.equal(tableMasks('(zz,17)'), [0n, 17n], 'what is no number is 0');
  assert.is(tableMasks('0x3,0x1'), undefined, 'no list');
});

test('show port P rss-hash: groups whose types are all on come first', () => {
  const key = Uint8Array.of(0x0a, 0xff);
  assert.is(rssHash({ types: 0n, key }, true), 'RSS disabled\n');
  assert.is(
    rssHash({ types: 0xa38cn, key }, true),
    'RSS functions:\n  ip  ipv4  ipv4-frag  ipv4-other  ipv6  ipv6-frag  ipv6-other\n  ipv6-ex\nRSS key:\n0AFF\n',
  );
});

test.run();
