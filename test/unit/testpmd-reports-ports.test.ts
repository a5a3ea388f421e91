/**
 * What testpmd's reports of ports look like: every text that is expected here was printed by DPDK 22.11.11's dpdk-testpmd,
 * with ports and counters as they are given.
 */

import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { checksumOffloads } from '../../driver/cli/testpmd/reports/checksum-offloads.js';
import { deviceInfo } from '../../driver/cli/testpmd/reports/device-info.js';
import { liveView } from '../../driver/cli/testpmd/reports/live-view.js';
import { macAddresses, multicastAddresses } from '../../driver/cli/testpmd/reports/mac-addresses.js';
import { offloadCapabilities, offloadConfiguration } from '../../driver/cli/testpmd/reports/offloads.js';
import { portInfo, portSummary, portSummaryHead } from '../../driver/cli/testpmd/reports/port-info.js';
import { extendedStatistics, portStatistics } from '../../driver/cli/testpmd/reports/port-statistics.js';
import { PortMeter } from '../../driver/cli/testpmd/reports/rates.js';
import { redirectionTable, rssHash, tableMasks } from '../../driver/cli/testpmd/reports/rss.js';
import { supportedRssTypes } from '../../driver/cli/testpmd/reports/rss-types.js';
import { segmentation } from '../../driver/cli/testpmd/reports/segmentation.js';
import { noStatistics, toldPort } from '../support/told-device.js';

const test = suite('testpmd reports of ports');

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

test('--stats-period on a terminal: two rows a port, with rates, and what is wrong', async () => {
  const statistics = {
    ...noStatistics,
    rxPackets: 3_000_000,
    rxMissed: 5,
    rxNoBuffer: 2,
    txPackets: 1000,
    txErrors: 4,
  };
  const rates = { rxPackets: 1_500_000, rxBits: 768_000_000, txPackets: 1000, txBits: 512_000 };
  const table = await liveView([{ id: 0, name: 'net_null0', isUp: false, statistics, rates }]);
  const rows = table.split('\n').map((line) => line.split('│').map((cell) => cell.trim()));
  assert.equal(rows[3]?.slice(1, -1), [
    '0: net_null0',
    'received',
    '3,000,000',
    '1.50 Mpps',
    '0.77 Gbit/s',
    '0',
    '7',
    '0',
  ]);
  assert.equal(rows[4]?.slice(1, -1), ['link is down', 'sent', '1,000', '1.00 kpps', '0.00 Gbit/s', '0', '', '4']);
});

test('show port xstats: zeroes are hidden where that is set', () => {
  const values = [
    { name: 'rx_good_packets', value: 0 },
    { name: 'tx_good_packets', value: 7 },
  ];
  assert.is(extendedStatistics(values, false), 'rx_good_packets: 0\ntx_good_packets: 7\n');
  assert.is(extendedStatistics(values, true), 'tx_good_packets: 7\n');
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
