/**
 * What testpmd's reports of forwarding look like: every text that is expected here was printed by DPDK 22.11.11's dpdk-testpmd,
 * with ports and counters as they are given.
 */

import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { planForwarding } from '../../driver/cli/testpmd/forward-plan.js';
import { BurstCounter, StreamCounter } from '../../driver/cli/testpmd/lcore/stream.js';
import { burstSpread } from '../../driver/cli/testpmd/reports/burst-spread.js';
import {
  forwardConfiguration,
  forwardingCores,
  rxTxConfiguration,
} from '../../driver/cli/testpmd/reports/forward-configuration.js';
import { type ForwardStatistics, forwardStatistics } from '../../driver/cli/testpmd/reports/forward-statistics.js';
import {
  rxHeaderConfiguration,
  rxOffsetConfiguration,
  rxPacketConfiguration,
  txPacketConfiguration,
  txTimeConfiguration,
} from '../../driver/cli/testpmd/reports/packet-configuration.js';
import { Settings } from '../../driver/cli/testpmd/settings.js';
import { noStatistics, toldPort } from '../support/told-device.js';

const test = suite('testpmd reports of forwarding');

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

test.run();
